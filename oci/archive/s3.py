"""An archive as an object in S3: read by range, written as a multipart upload that nobody sees before it is complete.

Works with what calls itself S3 as well. Facts about other stores that shape it: Ceph 16 ignores the conditions of
CompleteMultipartUpload and answers it without an ETag; SeaweedFS lists uploads unsorted; an upload that is gone is
NoSuchUpload for some and NoSuchKey for others; some know no checksums but MD5.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from oci.archive.parts import MOST_PARTS, SMALLEST, Part
from oci.archive.s3errors import as_store_error, code_of
from oci.archive.s3settings import WHEN_REQUIRED, S3Settings
from oci.archive.storage import READ_SIZE, ByteReader, StoredPart
from oci.cancel import CancelToken
from oci.errors import IntegrityError, NotFound, Refused, Unavailable
from oci.reference import S3_PREFIX

FINGERPRINT = "transship-fingerprint"
"""Metadata key: of the plan that an object was written from, set by whoever proved every blob of it."""

_STATE_SUFFIX = ".transship-upload"
_GONE = frozenset({"NoSuchUpload", "NoSuchKey", "404"})
_NOT_KNOWN = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"})
_READ_TRIES = 5


class S3:
    """One client for all threads."""

    def __init__(self, settings: S3Settings, *, side: str) -> None:
        self.settings = settings
        self.side = side
        with self.mapped(settings.endpoint or "S3", "connecting"):
            self.client = _client(settings)

    @contextmanager
    def mapped(self, location: str, operation: str) -> Iterator[None]:
        """Errors of boto3 as ours."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise as_store_error(error, side=self.side, store=location, operation=operation) from error


def _client(settings: S3Settings) -> Any:
    session = boto3.Session(
        profile_name=settings.profile or None,
        region_name=settings.region or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        aws_session_token=settings.session_token or None,
    )
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        max_pool_connections=settings.connections,
        s3={"addressing_style": "path"} if settings.path_style else {},
        connect_timeout=10,
        read_timeout=60,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    keys: Mapping[str, Any] = {}
    if settings.role:
        keys = session.client("sts").assume_role(RoleArn=settings.role, RoleSessionName="transship")["Credentials"]
    return session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        verify=(settings.ca_file or None) if settings.verify else False,
        config=config,
        region_name=session.region_name or "us-east-1",
        aws_access_key_id=keys.get("AccessKeyId"),
        aws_secret_access_key=keys.get("SecretAccessKey"),
        aws_session_token=keys.get("SessionToken"),
    )


def split(location: str) -> dict[str, str]:
    bucket, _, key = location.removeprefix(S3_PREFIX).partition("/")
    return {"Bucket": bucket, "Key": key}


class S3Reader:
    """An object, the version that was there when it was opened: if it is replaced meanwhile, reading fails."""

    def __init__(self, location: str, s3: S3, *, cancel: CancelToken) -> None:
        self.location = location
        self._s3 = s3
        self._cancel = cancel
        self._name = split(location)
        with s3.mapped(location, "opening"):
            head = s3.client.head_object(**self._name)
        self.size: int = head["ContentLength"]
        self.etag: str = head.get("ETag", "")
        self.fingerprint: str = head.get("Metadata", {}).get(FINGERPRINT, "")

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """A stream that breaks off is continued where it broke."""
        end = offset + length
        tries = _READ_TRIES
        while offset < end:
            try:
                for chunk in self._stream(offset, end):
                    offset += len(chunk)
                    tries = _READ_TRIES
                    yield chunk
            except (Unavailable, IntegrityError):
                tries -= 1
                if not tries:
                    raise

    def close(self) -> None: ...

    def _stream(self, offset: int, end: int) -> Iterator[bytes]:
        self._cancel.check()
        match = {"IfMatch": self.etag} if self.etag else {}
        with self._s3.mapped(self.location, "reading"):
            answer = self._s3.client.get_object(**self._name, Range=f"bytes={offset}-{end - 1}", **match)
            with answer["Body"] as body:
                wanted = f"bytes {offset}-{end - 1}/{self.size}"
                if answer.get("ContentRange") != wanted:
                    raise Refused(
                        f"asked for {wanted}, and got {answer.get('ContentRange') or 'the whole object'}",
                        side=self._s3.side,
                        store=self.location,
                        operation="reading",
                        hint="the store doesn't serve ranges, or the object was replaced",
                    )
                for chunk in body.iter_chunks(READ_SIZE):
                    self._cancel.check()
                    offset += len(chunk)
                    yield chunk
        if offset < end:
            raise IntegrityError(f"{self._s3.side} {self.location}: the stream ended at byte {offset} of {end}")


class S3Writer:
    """A multipart upload. What is needed to go on after a crash is beside the object, under `KEY.transship-upload`,
    until the upload is complete."""

    smallest_part = SMALLEST
    reads_back = False

    def __init__(self, location: str, s3: S3) -> None:
        self.location = location
        self._s3 = s3
        self._name = split(location)
        self._upload = ""
        self._before: str | None = None
        """ETag of the object that the new one is to replace; None where there is none."""

    def begin(self, parts: Sequence[Part], fingerprint: str, *, resume: bool) -> Mapping[int, StoredPart]:
        if len(parts) > MOST_PARTS:
            raise Refused(f"{len(parts)} parts are more than S3 takes", store=self.location)
        with self._mapped("opening"):
            self._before = self._etag()
        layout = zlib.crc32(json.dumps([[part.start, part.end] for part in parts]).encode())
        mark = {"fingerprint": fingerprint, "layout": layout}
        state = self._state()
        if state is not None and {key: state.get(key) for key in mark} != mark:
            self._abort(str(state.get("upload")))
            state = None
        if state is not None and not resume:
            self._abort(str(state.get("upload")))
            state = None
        done = self._join(str(state["upload"]), parts) if state is not None else None
        if done is None:
            with self._mapped("starting the upload"):
                self._upload = self._create(fingerprint)
                self._put_state({**mark, "upload": self._upload})
            done = {}
        self._sweep()
        return done

    @property
    def ticket(self) -> str:
        """With it another process writes parts of the same upload."""
        return self._upload

    def join(self, ticket: str, parts: Sequence[Part]) -> Mapping[int, StoredPart]:
        """Takes part in an upload that another process has begun."""
        done = self._join(ticket, parts)
        if done is None:
            raise NotFound(
                "the upload is no more: it was completed or given up",
                side=self._s3.side,
                store=self.location,
                operation="joining the upload",
            )
        return done

    def put(self, part: Part, data: bytearray) -> None:
        digest = md5(data, usedforsecurity=False)
        if self._s3.settings.checksums == WHEN_REQUIRED:
            proof = {"ContentMD5": base64.b64encode(digest.digest()).decode()}
        else:
            proof = {"ChecksumCRC32": _crc32(data)}
        with self._mapped(f"storing part {part.number}"):
            answer = self._s3.client.upload_part(
                **self._name, UploadId=self._upload, PartNumber=part.number, Body=data, **proof
            )
        etag = answer.get("ETag", "").strip('"')
        if not self._s3.settings.encryption and len(etag) == 2 * digest.digest_size and etag != digest.hexdigest():
            raise IntegrityError(f"{self.location}: the store has other bytes of part {part.number} than were sent")

    def copy(self, part: Part, base: ByteReader) -> bool:
        """Inside the store, when both are in it and the older archive's bytes were proven when it was written."""
        if not isinstance(base, S3Reader) or part.copy_from is None or not base.fingerprint:
            return False
        last = part.copy_from + part.size - 1
        try:
            self._s3.client.upload_part_copy(
                **self._name,
                UploadId=self._upload,
                PartNumber=part.number,
                CopySource=split(base.location),
                CopySourceRange=f"bytes={part.copy_from}-{last}",
                **({"CopySourceIfMatch": base.etag} if base.etag else {}),
            )
        except ClientError:
            return False  # another store, another owner, or one that can't: its bytes are read instead
        return True

    def stored(self, part: Part) -> Iterator[bytes]:
        raise Refused(f"part {part.number} can't be read before the upload is complete", store=self.location)

    def finish(self, parts: Sequence[Part]) -> None:
        """Raises Refused when the object has changed since `begin`: somebody else has written it."""
        stored = {entry["PartNumber"]: entry for entry in self._listed(self._upload)}
        missing = [part.number for part in parts if stored.get(part.number, {}).get("Size") != part.size]
        if missing:
            raise IntegrityError(f"{self.location}: part {missing[0]} isn't in the upload as it was sent")
        named = [_named(stored[part.number]) for part in parts]
        with self._mapped("completing the upload"):
            self._check_before()
            self._complete(named)
            head = self._s3.client.head_object(**self._name)
        if head["ContentLength"] != parts[-1].end:
            raise IntegrityError(f"{self.location}: the object has {head['ContentLength']} bytes, not {parts[-1].end}")
        with suppress(ClientError, BotoCoreError):
            self._s3.client.delete_object(**self._state_name())

    def leave(self) -> None: ...

    def _create(self, fingerprint: str) -> str:
        settings = self._s3.settings
        more: dict[str, Any] = {"Metadata": {FINGERPRINT: fingerprint}, "ContentType": "application/x-tar"}
        if settings.checksums != WHEN_REQUIRED:
            more["ChecksumAlgorithm"] = "CRC32"
        if settings.encryption:
            kind, _, key = settings.encryption.partition(":kms:")
            more["ServerSideEncryption"] = f"{kind}:kms" if key else settings.encryption
            more |= {"SSEKMSKeyId": key} if key else {}
        if settings.storage_class:
            more["StorageClass"] = settings.storage_class
        if settings.tags:
            more["Tagging"] = "&".join(f"{key}={value}" for key, value in settings.tags.items())
        answer = self._s3.client.create_multipart_upload(**self._name, **more)
        return str(answer["UploadId"])

    def _complete(self, named: list[dict[str, Any]]) -> None:
        """Only if the object is still the one that it was; a store that doesn't know such conditions was asked just
        before."""
        condition = {"IfMatch": self._before} if self._before else {"IfNoneMatch": "*"}
        call = {**self._name, "UploadId": self._upload, "MultipartUpload": {"Parts": named}}
        try:
            self._s3.client.complete_multipart_upload(**call, **condition)
        except ClientError as error:
            if code_of(error) not in _NOT_KNOWN:
                raise
            self._s3.client.complete_multipart_upload(**call)

    def _check_before(self) -> None:
        if self._etag() != self._before:
            raise Refused(
                "another run has written this object meanwhile",
                side=self._s3.side,
                store=self.location,
                operation="completing the upload",
                code="PreconditionFailed",
                hint="look at what is there; to replace it, run it again",
            )

    def _etag(self) -> str | None:
        try:
            answer = self._s3.client.head_object(**self._name)
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404", "NotFound"):
                return None
            raise
        return str(answer.get("ETag", ""))

    def _join(self, upload: str, parts: Sequence[Part]) -> Mapping[int, StoredPart] | None:
        """The parts that the upload has; None when there is no such upload any more."""
        try:
            with self._mapped("looking for the upload"):
                listed = list(self._listed(upload))
        except NotFound:
            return None
        self._upload = upload
        sizes = {part.number: part.size for part in parts}
        return {
            entry["PartNumber"]: _stored(entry) for entry in listed if sizes.get(entry["PartNumber"]) == entry["Size"]
        }

    def _listed(self, upload: str) -> Iterator[dict[str, Any]]:
        with self._mapped("listing the parts"):
            for page in self._s3.client.get_paginator("list_parts").paginate(**self._name, UploadId=upload):
                yield from page.get("Parts", ())

    def _abort(self, upload: str) -> None:
        with suppress(ClientError, BotoCoreError):
            self._s3.client.abort_multipart_upload(**self._name, UploadId=upload)

    def _sweep(self) -> None:
        """Removes unfinished uploads of this object that are too old to be anybody's; their parts cost money."""
        now = datetime.now(UTC)
        with suppress(ClientError, BotoCoreError):
            pages = self._s3.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._name["Bucket"], Prefix=self._name["Key"]):
                for upload in page.get("Uploads", ()):
                    old = (now - upload["Initiated"]).total_seconds() > self._s3.settings.abandoned_after
                    if old and upload["Key"] == self._name["Key"] and upload["UploadId"] != self._upload:
                        self._abort(upload["UploadId"])

    def _state_name(self) -> dict[str, str]:
        return {**self._name, "Key": self._name["Key"] + _STATE_SUFFIX}

    def _state(self) -> dict[str, Any] | None:
        try:
            body = self._s3.client.get_object(**self._state_name())["Body"].read(READ_SIZE)
            state = json.loads(body)
        except (ClientError, BotoCoreError, ValueError):
            return None
        return state if isinstance(state, dict) and isinstance(state.get("upload"), str) else None

    def _put_state(self, state: Mapping[str, Any]) -> None:
        body = json.dumps(state).encode()
        proof = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
        self._s3.client.put_object(**self._state_name(), Body=body, ContentMD5=proof)

    @contextmanager
    def _mapped(self, operation: str) -> Iterator[None]:
        with self._s3.mapped(self.location, operation):
            yield


def _stored(entry: Mapping[str, Any]) -> StoredPart:
    crc = entry.get("ChecksumCRC32")
    etag = entry.get("ETag", "").strip('"')
    return StoredPart(
        crc32=int.from_bytes(base64.b64decode(crc), "big") if crc else None, md5=etag if len(etag) == 32 else ""
    )


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    """As CompleteMultipartUpload wants a part: with the checksum that the store gave it, or none (S3 refuses them for
    an upload that was begun without)."""
    named = {"PartNumber": entry["PartNumber"], "ETag": entry["ETag"]}
    if entry.get("ChecksumCRC32"):
        named["ChecksumCRC32"] = entry["ChecksumCRC32"]
    return named


def _crc32(data: bytearray) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
