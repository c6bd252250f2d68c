"""Writing an archive to S3: a multipart upload, which has no object before it is complete."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from oci.archive.open import ByteReader
from oci.archive.options import WHEN_REQUIRED
from oci.archive.s3 import FINGERPRINT, S3, S3Object, S3Reader
from oci.descriptor import parse_json
from oci.digest import READ_SIZE
from oci.errors import Denied, IntegrityError, InvalidDocument, NotFound, Refused, StoreError, TransshipError
from oci.export.tar_plan import MOST_PARTS, Part, ReadPart, StoredPart

STATE_SUFFIX = ".transship-"

_CONDITIONS_UNKNOWN = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"})
_OVERTAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})


class SourceFailed(BaseException):
    """Reading failed, not sending: as an Exception, boto3 would take it for a broken connection and send again."""

    def __init__(self, error: TransshipError) -> None:
        super().__init__(error)
        self.error = error


class PartBody:
    """What boto3 sends: a file that is read from its places again whenever it is rewound, for a signature or because
    sending failed. `crc32` is that of the bytes read since."""

    def __init__(self, read: ReadPart, size: int) -> None:
        self._read = read
        self._size = size
        self.seek(0)

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> None:
        """Goes back to the beginning: botocore asks for nothing else."""
        if offset:
            raise ValueError("a part is sent from its beginning")
        self._at = 0
        self._chunks = self._read()
        self._unsent = memoryview(b"")
        self.crc32 = 0

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._unsent and (chunk := next(self._chunks, None)) is not None:
                self._unsent = memoryview(chunk)
        except TransshipError as error:
            raise SourceFailed(error) from error
        data = bytes(self._unsent if size < 0 else self._unsent[:size])
        self._unsent = self._unsent[len(data) :]
        self._at += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        return data


class S3Writer:
    """A multipart upload. Its id, which going on after a crash takes, is beside the object under a name that says which
    archive it is of, so that runs of different archives don't touch each other's; it goes when the upload is complete.
    The upload of another program is never ended before it has been idle for days.
    """

    reads_back = False

    def __init__(self, location: str, s3: S3) -> None:
        self.location = location
        self._s3 = s3
        self._object = S3Object(location, s3)
        self._state = self._object
        self._upload = ""
        self._fingerprint = ""
        self._before: str | None = None
        """ETag of the object that the new one is to replace; None where there is none."""
        self._note_version = ""
        self._may_look = True
        """Whether this identity may ask what is there: without s3:ListBucket, S3 denies it for what isn't there."""
        self._sent: dict[int, dict[str, Any]] = {}
        """The parts of this process as ListParts has them, for an identity that may not list them."""

    def begin(self, parts: Sequence[Part], fingerprint: str, *, resume: bool) -> Mapping[int, StoredPart]:
        if len(parts) > MOST_PARTS:
            raise Refused(f"{len(parts)} parts are more than S3 takes", side=self._s3.side, store=self.location)
        self._take_up(parts, fingerprint)
        before = self._head("opening")
        self._before = before.get("ETag", "") if before is not None else None
        stored = self._stored_by_earlier_run(parts) if resume else None
        if stored is None:
            self._create()
            stored = {}
        self._sweep()
        return stored

    def is_begun(self, parts: Sequence[Part], fingerprint: str) -> bool:
        self._take_up(parts, fingerprint)
        return self._stored_by_earlier_run(parts) is not None

    @property
    def ticket(self) -> str:
        """Ticket with which another process writes parts of the same upload, or finishes it."""
        return json.dumps([self._upload, self._fingerprint, self._before, self._state.location])

    def join(self, ticket: str, parts: Sequence[Part]) -> Mapping[int, StoredPart]:
        try:
            upload, self._fingerprint, self._before, state = parse_json(ticket)
        except (ValueError, TypeError) as error:
            raise InvalidDocument(f"this is no ticket of an upload: {error}") from error
        self._state = S3Object(state, self._s3)
        stored = self._parts_of(upload, parts)
        if stored is None:
            raise NotFound(
                "the upload is no more: it was completed or given up",
                side=self._s3.side,
                store=self.location,
                operation="joining the upload",
                hint="start the export again",
            )
        return stored

    def put(self, part: Part, data: bytearray) -> None:
        self._send(part, data, zlib.crc32(data), lambda: md5(data, usedforsecurity=False).digest())

    def put_stream(self, part: Part, read: ReadPart, stored: StoredPart | None) -> bool:
        """Read twice, or once more where its bytes are signed: they are proven, and their checksums known, before the
        first of them is sent."""
        crc, digest = 0, md5(usedforsecurity=False)
        for chunk in read():
            crc = zlib.crc32(chunk, crc)
            digest.update(chunk)
        if stored is not None and stored.is_of(crc, digest.hexdigest):
            return False
        body = PartBody(read, part.size)
        try:
            self._send(part, body, crc, digest.digest)
        except SourceFailed as failed:
            raise failed.error from failed
        except StoreError as error:
            if body.tell() == part.size and body.crc32 != crc:
                raise _changed(part) from error
            raise
        if body.crc32 != crc:
            raise _changed(part)
        return True

    def _send(self, part: Part, body: bytearray | PartBody, crc32: int, digest: Callable[[], bytes]) -> None:
        """Asks for the MD5 where nothing else can prove what the store has."""
        operation = f"storing part {part.number}"
        crc = base64.b64encode(crc32.to_bytes(4, "big")).decode()
        needs_md5 = self._s3.settings.checksums == WHEN_REQUIRED
        proof = {"ContentMD5": base64.b64encode(digest()).decode()} if needs_md5 else {"ChecksumCRC32": crc}
        answer = self._object.ask(
            operation, "upload_part", UploadId=self._upload, PartNumber=part.number, Body=body, **proof
        )
        if "ChecksumCRC32" in answer:
            sound = answer["ChecksumCRC32"] == crc
        else:
            # With a key of a key service or a customer, the ETag is no MD5.
            etag = answer.get("ETag", "").strip('"')
            is_md5 = len(etag) == 32 and answer.get("ServerSideEncryption", "AES256") == "AES256"
            sound = not is_md5 or etag == digest().hex()
        if not sound:
            raise IntegrityError(f"{self.location}: the store has other bytes of part {part.number} than were sent")
        self._note_sent(part, answer)

    def copy(self, part: Part, base: ByteReader) -> bool:
        """Inside the store, when both are in it and the older archive's bytes were proven when it was written."""
        if not isinstance(base, S3Reader) or part.copy_from is None or not base.fingerprint:
            return False
        if base.s3.settings.address != self._s3.settings.address:
            return False
        last = part.copy_from + part.size - 1
        try:
            answer = self._object.ask(
                f"copying part {part.number}",
                "upload_part_copy",
                UploadId=self._upload,
                PartNumber=part.number,
                CopySource=dict(S3Object(base.location, base.s3).name),
                CopySourceRange=f"bytes={part.copy_from}-{last}",
                **({"CopySourceIfMatch": base.etag} if base.etag else {}),
            )
        except StoreError:
            return False  # another owner, or a store that can't: its bytes are read instead
        self._note_sent(part, answer.get("CopyPartResult", {}))
        return True

    def _note_sent(self, part: Part, answer: Mapping[str, Any]) -> None:
        if "ETag" in answer:
            named = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}
            self._sent[part.number] = {"PartNumber": part.number, "Size": part.size, **named}

    def stored(self, part: Part) -> Iterator[bytes]:
        raise Refused(f"part {part.number} can't be read before the upload is complete", store=self.location)

    def finish(self, parts: Sequence[Part]) -> None:
        """Raises Refused when the object has changed since `begin`: another program has written it."""
        try:
            stored = {entry["PartNumber"]: entry for entry in self._listed(self._upload)}
        except Denied:
            stored = self._sent
        missing = [part.number for part in parts if stored.get(part.number, {}).get("Size") != part.size]
        if missing:
            raise IntegrityError(f"{self.location}: part {missing[0]} isn't in the upload as it was sent")
        size = parts[-1].end
        # As CompleteMultipartUpload wants parts: with the checksums that the store gave them, or none (S3 refuses them
        # for an upload that was begun without).
        keys = ("PartNumber", "ETag", "ChecksumCRC32")
        entries = [stored[part.number] for part in parts]
        named = [{key: entry[key] for key in keys if key != "ChecksumCRC32" or entry.get(key)} for entry in entries]
        try:
            self._check_before()
            self._complete(named)
        except StoreError as error:
            # Asked twice because the first answer was lost, or another run was faster with the same archive.
            if not (isinstance(error, NotFound) or error.code in _OVERTAKEN) or not self._is_there(size):
                raise
            self._abort(self._upload)
        if not self._is_there(size) and self._may_look:
            raise self._overtaken()
        if self._noted() == self._upload:
            # Its version in a bucket that keeps versions: each archive would leave one there, and a marker, for ever.
            for which in ([{"VersionId": self._note_version}] if self._note_version else []) + [{}]:
                with suppress(StoreError):
                    self._state.ask("tidying up", "delete_object", **which)
                    break

    def leave(self) -> None: ...

    def _take_up(self, parts: Sequence[Part], fingerprint: str) -> None:
        self._fingerprint = fingerprint
        cut = json.dumps([fingerprint, [[part.start, part.end] for part in parts]])
        self._state = self._object.beside(STATE_SUFFIX + sha256(cut.encode()).hexdigest()[:16])

    def _stored_by_earlier_run(self, parts: Sequence[Part]) -> Mapping[int, StoredPart] | None:
        """Returns what an earlier run has stored; None when it has left nothing to go on with."""
        noted = self._noted()
        return self._parts_of(noted, parts) if noted else None

    def _create(self) -> None:
        settings = self._s3.settings
        more: dict[str, Any] = {"Metadata": {FINGERPRINT: self._fingerprint}, "ContentType": "application/x-tar"}
        if settings.checksums != WHEN_REQUIRED:
            # Of the whole object: then the parts' own needn't be sent again at the end. SeaweedFS doesn't list them.
            more |= {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        if settings.storage_class:
            more["StorageClass"] = settings.storage_class
        if settings.tags:
            more["Tagging"] = urlencode(settings.tags)
        answer = self._object.ask("starting the upload", "create_multipart_upload", **more, **self._encryption())
        self._upload = str(answer["UploadId"])
        body = json.dumps({"upload": self._upload, "archive": self._fingerprint}).encode()
        proof = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
        with suppress(Denied):  # an identity that may write this key alone: no later run goes on with it then
            self._state.ask("noting the upload", "put_object", Body=body, ContentMD5=proof, **self._encryption())

    def _encryption(self) -> dict[str, str]:
        kind, _, key = self._s3.settings.encryption.partition(":kms:")
        if not kind:
            return {}
        if key:
            return {"ServerSideEncryption": f"{kind}:kms", "SSEKMSKeyId": key}
        return {"ServerSideEncryption": kind}

    def _check_before(self) -> None:
        """For stores that don't know conditions: is the object still the one that it was?"""
        now = self._head("completing the upload")
        if self._may_look and (now.get("ETag", "") if now is not None else None) != self._before:
            raise self._overtaken()

    def _head(self, operation: str) -> dict[str, Any] | None:
        try:
            return self._object.head(operation)
        except Denied:
            self._may_look = False  # the upload itself says what this identity may do
            return None

    def _overtaken(self) -> Refused:
        return Refused(
            "another run has written this object meanwhile",
            side=self._s3.side,
            store=self.location,
            operation="completing the upload",
            code="PreconditionFailed",
            hint="look at what is there; to replace it, run it again",
        )

    def _complete(self, named: list[dict[str, Any]]) -> None:
        condition = {"IfMatch": self._before} if self._before else {"IfNoneMatch": "*"}
        call = {"UploadId": self._upload, "MultipartUpload": {"Parts": named}}
        try:
            self._object.ask("completing the upload", "complete_multipart_upload", **call, **condition)
        except StoreError as error:
            if error.code not in _CONDITIONS_UNKNOWN:
                raise
            self._object.ask("completing the upload", "complete_multipart_upload", **call)

    def _is_there(self, size: int) -> bool:
        """Says whether the object is what this upload would make of it."""
        head = self._head("completing the upload") or {}
        return head.get("ContentLength") == size and head.get("Metadata", {}).get(FINGERPRINT) == self._fingerprint

    def _parts_of(self, upload: str, parts: Sequence[Part]) -> Mapping[int, StoredPart] | None:
        """The parts that the upload has; None when there is no such upload any more."""
        try:
            listed = list(self._listed(upload))
        except NotFound:
            return None
        except Denied:
            listed = []  # all of them are sent, and `finish` knows them
        self._upload = upload
        sizes = {part.number: part.size for part in parts}
        return {
            entry["PartNumber"]: _stored(entry) for entry in listed if sizes.get(entry["PartNumber"]) == entry["Size"]
        }

    def _listed(self, upload: str) -> Iterator[dict[str, Any]]:
        for page in self._object.pages("listing the parts", "list_parts", **self._object.name, UploadId=upload):
            yield from page.get("Parts", ())

    def _abort(self, upload: str) -> None:
        with suppress(StoreError):
            self._object.ask("giving up the upload", "abort_multipart_upload", UploadId=upload)

    def _sweep(self) -> None:
        """Removes unfinished uploads of this object that nothing has been added to for so long that they are
        abandoned; their parts cost money."""
        with suppress(StoreError):  # an identity that may not list uploads leaves them to the bucket's own rules
            bucket, key = self._object.name["Bucket"], self._object.name["Key"]
            since = datetime.now(UTC) - timedelta(seconds=self._s3.settings.abandoned_after)
            for page in self._object.pages("looking for uploads", "list_multipart_uploads", Bucket=bucket, Prefix=key):
                for entry in page.get("Uploads", ()):
                    upload = entry["UploadId"]
                    times = chain([entry["Initiated"]], (part["LastModified"] for part in self._listed(upload)))
                    if entry["Key"] == key and upload != self._upload and all(time < since for time in times):
                        self._abort(upload)

    def _noted(self) -> str:
        """The id of the upload that a run of this archive has begun, or an empty text."""
        try:
            answer = self._state.ask("looking for an upload", "get_object")
            with self._s3.mapped(self._state.location, "looking for an upload"), closing(answer["Body"]) as body:
                text = body.read(READ_SIZE)
            state = parse_json(text)
            self._note_version = answer.get("VersionId", "")
        except (StoreError, ValueError):
            return ""
        return str(state.get("upload", "")) if isinstance(state, dict) else ""


def _stored(entry: Mapping[str, Any]) -> StoredPart:
    etag, crc = entry.get("ETag", "").strip('"'), b""
    with suppress(ValueError):
        crc = base64.b64decode(entry.get("ChecksumCRC32") or "", validate=True)
    return StoredPart(crc32=int.from_bytes(crc, "big") if len(crc) == 4 else None, md5=etag if len(etag) == 32 else "")


def _changed(part: Part) -> IntegrityError:
    return IntegrityError(f"the bytes of part {part.number} were others when they were read again")
