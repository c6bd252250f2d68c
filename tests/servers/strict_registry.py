"""A strict OCI 1.1 registry of our own, for what docker-registry lacks, with a switch for each feature.

Strict: a bad digest, name, tag, range or content type is refused with the specification's error code; a manifest whose
blobs or children aren't there, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.docker_registry import Seen
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.servers.strict_store import Store

_NAME = r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROUTES = [
    (re.compile(rf"/v2/({_NAME})/manifests/([^/]+)"), "manifest"),
    (re.compile(rf"/v2/({_NAME})/blobs/uploads/"), "begin"),
    (re.compile(rf"/v2/({_NAME})/blobs/uploads/([0-9a-f]+)"), "upload"),
    (re.compile(rf"/v2/({_NAME})/blobs/([^/]+)"), "blob"),
    (re.compile(rf"/v2/({_NAME})/tags/list"), "tags"),
    (re.compile(rf"/v2/({_NAME})/referrers/([^/]+)"), "referrers"),
]
_MANIFEST_TYPES = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    referrers: bool = True
    tag_paging: bool = True
    links: bool = True
    """With paging: does a page say where the next one is?"""
    unlisted: frozenset[str] = frozenset()
    """Tags that the list of tags hasn't, whatever is asked."""
    single_post: bool = True
    mount: bool = True
    resume: bool = True
    """Does a PATCH that broke off leave what arrived?"""
    no_deletes: bool = False
    """Is every deletion refused?"""
    tag_delete: bool = True
    tag_delete_takes_all: bool = False
    """Does deleting a tag delete its manifest, with all tags?"""
    ranges: bool = True
    digest_header: bool = True
    min_chunk: int = 0
    manifest_limit: int = 4 << 20
    immutable_tags: bool = False
    page: int = 100
    """Names in a page at the most."""
    user: str = ""
    """`name:password` for Basic authentication."""
    blobs_at: str = ""
    """URL of a server that blob reads are redirected to."""


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class StrictHandler(QuietHandler):
    @property
    def registry(self) -> StrictRegistry:
        return self.server.owner  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        self.registry.seen.append(Seen(self.command, self.path, status))
        super().answer(status, body, **headers)

    def _handle(self) -> None:
        self._length_left = int(self.headers.get("Content-Length") or 0)
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            self._check_login()
            if url.path == "/v2/":
                self.answer(200, b"{}")
                return
            self._route(url.path)
        except Refusal as refusal:
            self._drain()
            error = {"code": refusal.code, "message": refusal.message or refusal.code.lower()}
            body = json.dumps({"errors": [error]}).encode()
            self.answer(refusal.status, body, Content_Type="application/json", **refusal.headers)

    def _route(self, path: str) -> None:
        for pattern, kind in _ROUTES:
            found = pattern.fullmatch(path)
            if found:
                getattr(self, f"_{kind}")(*found.groups())
                return
        raise Refusal(404, "NAME_INVALID", "no such route")

    def _check_login(self) -> None:
        user = self.registry.features.user
        if user and self.headers.get("Authorization") != f"Basic {base64.b64encode(user.encode()).decode()}":
            raise Refusal(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="strict"')

    def _read(self) -> bytes:
        """The body; what arrived of one that broke off is kept in `self.partial`."""
        data = bytearray()
        while self._length_left:
            piece = self.rfile.read1(min(65536, self._length_left))
            if not piece:
                self.partial = bytes(data)
                raise ConnectionError("the client went away")
            data += piece
            self._length_left -= len(piece)
        return bytes(data)

    def _drain(self) -> None:
        if self._length_left:
            try:
                self._read()
            except ConnectionError:
                self.close_connection = True

    def _digest(self, text: str) -> str:
        if not _DIGEST.fullmatch(text):
            raise Refusal(400, "DIGEST_INVALID", text[:80])
        return text

    def _headers_of(self, digest: str) -> dict[str, str]:
        return {"Docker_Content_Digest": digest} if self.registry.features.digest_header else {}

    def _manifest(self, name: str, reference: str) -> None:
        store, features = self.registry.store, self.registry.features
        repository = store.repositories.get(name)
        by_digest = ":" in reference
        if by_digest:
            self._digest(reference)
        elif not _TAG.fullmatch(reference):
            raise Refusal(400, "MANIFEST_INVALID", "bad tag")
        if self.command == "PUT":
            self._put_manifest(name, reference, by_digest=by_digest)
            return
        if repository is None:
            raise Refusal(404, "NAME_UNKNOWN")
        digest = reference if by_digest else repository.tags.get(reference, "")
        if self.command == "DELETE" and features.no_deletes:
            raise Refusal(405, "UNSUPPORTED")
        if digest not in repository.manifests:
            raise Refusal(404, "MANIFEST_UNKNOWN", reference)
        if self.command == "DELETE":
            if not (by_digest or features.tag_delete):
                raise Refusal(405, "UNSUPPORTED")
            if features.tag_delete_takes_all:
                by_digest, reference = True, digest
            with store.lock:
                for tag in [tag for tag, one in repository.tags.items() if (one if by_digest else tag) == reference]:
                    del repository.tags[tag]
                if by_digest:
                    del repository.manifests[digest]
            self.answer(202)
            return
        media_type, raw = repository.manifests[digest]
        accepted = self.headers.get("Accept", "*/*")
        if media_type not in accepted and "*/*" not in accepted:
            raise Refusal(404, "MANIFEST_UNKNOWN", "media type not accepted")
        self.answer(200, raw, Content_Type=media_type, **self._headers_of(digest))

    def _put_manifest(self, name: str, reference: str, *, by_digest: bool) -> None:
        store, features = self.registry.store, self.registry.features
        raw = self._read()
        media_type = self.headers.get("Content-Type", "")
        if len(raw) > features.manifest_limit:
            raise Refusal(413, "MANIFEST_INVALID", "too large")
        if media_type not in _MANIFEST_TYPES:
            raise Refusal(400, "MANIFEST_INVALID", f"content type {media_type}")
        try:
            body: dict[str, Any] = json.loads(raw)
        except ValueError:
            raise Refusal(400, "MANIFEST_INVALID", "not JSON") from None
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if by_digest and digest != reference:
            raise Refusal(400, "DIGEST_INVALID", "the bytes have another digest")
        with store.lock:
            repository = store.repository(name)
            for blob in [*body.get("layers", []), *([body["config"]] if body.get("config") else [])]:
                if blob["digest"] not in repository.blobs and not blob.get("urls"):
                    raise Refusal(400, "MANIFEST_BLOB_UNKNOWN", blob["digest"])
            for child in body.get("manifests", []):
                if child["digest"] not in repository.manifests:
                    raise Refusal(400, "MANIFEST_BLOB_UNKNOWN", child["digest"])
            if not by_digest:
                if features.immutable_tags and reference in repository.tags:
                    raise Refusal(409, "TAG_INVALID", "the tag is immutable and exists")
                repository.tags[reference] = digest
            repository.manifests[digest] = (media_type, raw)
        headers = self._headers_of(digest)
        subject = (body.get("subject") or {}).get("digest")
        if subject and features.referrers:
            headers["OCI_Subject"] = subject
        self.answer(201, Location=f"/v2/{name}/manifests/{digest}", **headers)

    def _blob(self, name: str, reference: str) -> None:
        store, features = self.registry.store, self.registry.features
        digest = self._digest(reference)
        repository = store.repositories.get(name)
        if repository is None or digest not in repository.blobs:
            raise Refusal(404, "BLOB_UNKNOWN", digest)
        if self.command == "DELETE":
            repository.blobs.discard(digest)
            self.answer(202)
            return
        if features.blobs_at:
            self.answer(307, Location=f"{features.blobs_at}{self.path}")
            return
        data = store.blobs[digest]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"Content_Type": "application/octet-stream", **self._headers_of(digest)}
        if asked is None or not features.ranges:
            self.answer(200, data, **headers)
            return
        start, end = int(asked.group(1)), min(int(asked.group(2) or len(data) - 1), len(data) - 1)
        if start > end:
            raise Refusal(416, "RANGE_INVALID", Content_Range=f"bytes */{len(data)}")
        self.answer(206, data[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(data)}", **headers)

    def _begin(self, name: str) -> None:
        store, features = self.registry.store, self.registry.features
        with store.lock:
            if "mount" in self.query and features.mount:
                digest = self._digest(self.query["mount"])
                home = store.repositories.get(self.query.get("from", ""))
                if home is not None and digest in home.blobs:
                    store.repository(name).blobs.add(digest)
                    self._created(name, digest)
                    return
        if "digest" in self.query and features.single_post:
            self._finish(name, self._read(), self.query["digest"])
            return
        self._drain()
        session = store.begin(name)
        headers = {"OCI_Chunk_Min_Length": str(features.min_chunk)} if features.min_chunk else {}
        self.answer(202, Location=f"/v2/{name}/blobs/uploads/{session}", Range="0-0", **headers)

    def _upload(self, name: str, session: str) -> None:
        store = self.registry.store
        upload = store.uploads.get(session)
        if upload is None or upload.repository != name:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "GET":
            self._progress(204, name, session)
        elif self.command == "DELETE":
            del store.uploads[session]
            self.answer(204)
        elif self.command == "PATCH":
            self._patch(name, session)
        elif self.command == "PUT":
            data = bytes(upload.data) + self._receive(upload)
            del store.uploads[session]
            self._finish(name, data, self.query.get("digest", ""))
        else:
            raise Refusal(405, "UNSUPPORTED")

    def _patch(self, name: str, session: str) -> None:
        features = self.registry.features
        upload = self.registry.store.uploads[session]
        said = self.headers.get("Content-Range", "")
        if said:
            found = re.fullmatch(r"(\d+)-(\d+)", said)
            length = int(self.headers.get("Content-Length") or 0)
            if found is None or int(found.group(2)) - int(found.group(1)) + 1 != length:
                raise Refusal(400, "SIZE_INVALID", "Content-Range and Content-Length disagree")
            if int(found.group(1)) != len(upload.data):
                raise Refusal(416, "RANGE_INVALID", Range=f"0-{max(0, len(upload.data) - 1)}")
            if length < features.min_chunk:
                upload.data += self._read()
                self.registry.short_chunks += 1
                self._progress(202, name, session)
                return
        upload.data += self._receive(upload)
        self._progress(202, name, session)

    def _receive(self, upload: Any) -> bytes:
        """The body. One that breaks off leaves what arrived, if the registry can resume; the client sees nothing."""
        try:
            return self._read()
        except ConnectionError:
            if self.registry.features.resume:
                upload.data += self.partial
            self.close_connection = True
            raise

    def _progress(self, status: int, name: str, session: str) -> None:
        received = len(self.registry.store.uploads[session].data)
        headers = {"Location": f"/v2/{name}/blobs/uploads/{session}", "Range": f"0-{max(0, received - 1)}"}
        self.answer(status, **headers)

    def _finish(self, name: str, data: bytes, digest: str) -> None:
        self._digest(digest)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise Refusal(400, "DIGEST_INVALID", "the bytes have another digest")
        with self.registry.store.lock:
            self.registry.store.add_blob(name, data)
        self._created(name, digest)

    def _created(self, name: str, digest: str) -> None:
        self.answer(201, Location=f"/v2/{name}/blobs/{digest}", **self._headers_of(digest))

    def _tags(self, name: str) -> None:
        repository = self.registry.store.repositories.get(name)
        if repository is None:
            raise Refusal(404, "NAME_UNKNOWN", name)
        features, headers = self.registry.features, {}
        tags = sorted(repository.tags.keys() - features.unlisted)
        if features.tag_paging:
            count = min(int(self.query.get("n", features.page)), features.page)
            left = [tag for tag in tags if tag > self.query.get("last", "")]
            tags = left[:count]
            if len(left) > count and features.links:
                headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={tags[-1]}>; rel="next"'
        self.answer(200, json.dumps({"name": name, "tags": tags}).encode(), Content_Type="application/json", **headers)

    def _referrers(self, name: str, subject: str) -> None:
        if not self.registry.features.referrers:
            raise Refusal(404, "UNSUPPORTED")
        found = self.registry.store.referrers(name, self._digest(subject))
        headers = {}
        wanted = self.query.get("artifactType", "")
        if wanted:
            found = [one for one in found if one.get("artifactType") == wanted]
            headers["OCI_Filters_Applied"] = "artifactType"
        skip, page = int(self.query.get("skip", 0)), self.registry.features.page
        if len(found) > skip + page:
            headers["Link"] = f'</v2/{name}/referrers/{subject}?skip={skip + page}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[skip : skip + page]}
        self.answer(200, json.dumps(body).encode(), Content_Type=INDEX, **headers)


class StrictRegistry(LoopbackServer):
    handler = StrictHandler

    def __init__(self, features: Features | None = None) -> None:
        super().__init__()
        self.features = features or Features()
        self.store = Store()
        self.seen: list[Seen] = []
        self.short_chunks = 0

    def requests(self) -> list[Seen]:
        return list(self.seen)
