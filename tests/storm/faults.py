"""The table of what registries do wrong, as data: where, and what happens there.

A row is tried with every operation that makes such a request, at the first, the middle and the last of them, on each
side. `stays` says that it goes on from there; otherwise it happens once. `unseen` names the operations in which the
registry tells a lie that shows in a read-back only, and says which: such a run may end well with something missing.
"""

# ruff: noqa: E501 - a row is a line

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.proxy import Fault

PLACES: Mapping[str, tuple[str, str]] = {
    "base": ("GET", r"^/v2/$"),
    "manifest": ("GET", r"/manifests/"),
    "manifest HEAD": ("HEAD", r"/manifests/"),
    "blob": ("GET", r"/blobs/sha256"),
    "blob HEAD": ("HEAD", r"/blobs/sha256"),
    "tags": ("GET", r"/tags/list"),
    "referrers": ("GET", r"/referrers/"),
    "start": ("POST", r"/blobs/uploads/(\?|$)"),
    "mount": ("POST", r"[?&]mount="),
    "chunk": ("PATCH", r"/blobs/uploads/"),
    "upload": ("PUT", r"/blobs/uploads/"),
    "push": ("PUT", r"/manifests/"),
    "delete": ("DELETE", r"/manifests/"),
    "read": ("GET|HEAD", r"^/v2/.+"),
    "write": ("POST|PUT|PATCH|DELETE", r"^/v2/.+"),
    "any": (".*", r"^/v2/.+"),
}
"""Method and path of the requests that a row is for."""

READS = frozenset({"base", "manifest", "blob", "tags", "referrers", "read"})


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    place: str
    does: Mapping[str, Any]
    stays: bool = False
    unseen: Mapping[str, str] = field(default_factory=dict)

    def fault(self, number: int, method: str, path: str) -> Fault:
        """What happens to the `number`-th such request, and with `stays` to all after it."""
        return Fault(method=method, path=path, first=number, last=1 << 30 if self.stays else number, **self.does)


def answer(status: int, code: str = "", **headers: str) -> dict[str, Any]:
    """An answer of the registry's own; with a code, in the words of the specification."""
    body = json.dumps({"errors": [{"code": code, "message": "words of the registry"}]}).encode() if code else b""
    return {"status": status, "body": body, "headers": headers}


def raw(data: str, then: str = "close", **more: Any) -> dict[str, Any]:
    return {"raw": data.replace("\n", "\r\n").encode("latin-1"), "then": then, **more}


OK = "HTTP/1.1 200 OK\n"
ZEROS = "sha256:" + "0" * 64
HTML = {
    "status": 200,
    "body": b"<html><body>log in to the network</body></html>",
    "headers": {"Content-Type": "text/html"},
}


def lies(what: str, *operations: str) -> Mapping[str, str]:
    return dict.fromkeys(operations, what)


WRITES = ("copy", "copy in chunks", "copy beside", "push", "import", "mirror")
NOT_KEPT = "a manifest was answered with 201 and not kept"
SAYS_THERE = "a manifest that isn't there was said to be there"
SAYS_OTHER = "a tag was said to show another digest than it does"
SAYS_MISSING = "an image or a signature was said to be missing where it is"
SHORT_LIST = "a list of tags is cut short, without a Link"

ROWS: tuple[Row, ...] = (
    # Asked to slow down: 1 to 6.
    Row("429, wait a second", "any", answer(429, "TOOMANYREQUESTS", Retry_After="1")),
    Row("429, wait until a date that is past", "any", answer(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")),
    Row("429 without a time", "any", answer(429)),
    Row("429 for ever, wait an hour", "any", answer(429, Retry_After="3600"), stays=True),
    Row("429, wait until the year 9999", "any", answer(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"), stays=True),
    Row("503, wait 400 digits of seconds", "any", answer(503, Retry_After="9" * 400), stays=True),
    # Out of order: 7 to 20.
    Row("408 without a body", "any", answer(408)),
    Row("425", "any", answer(425)),
    Row("500 with a body", "any", answer(500, "UNKNOWN")),
    Row("500 without a body", "any", answer(500)),
    Row("500 for ever", "any", answer(500, "UNKNOWN"), stays=True),
    Row("501 to a write", "write", answer(501)),
    Row("502 in HTML", "any", {"status": 502, "body": b"<html>bad gateway</html>", "headers": {"Content-Type": "text/html"}}),
    Row("503 without a time", "any", answer(503)),
    Row("503 for ever", "any", answer(503, "UNAVAILABLE"), stays=True),
    Row("504", "any", answer(504)),
    Row("an error body that isn't JSON", "any", {"status": 500, "body": b"\xff\xfe{", "headers": {}}),
    Row("an error body that never ends", "any", raw("HTTP/1.1 500 X\nConnection: close\n\n", "repeat", piece=b"x" * 65536)),
    Row("a status of nothing known", "any", answer(299)),
    Row("a status of 999", "any", raw("HTTP/1.1 999 What\nContent-Length: 0\n\n")),
    # Connections: 21 to 36.
    Row("refused", "any", {"refuse": 0.3}),
    Row("reset before headers", "any", {"reset_after": 0}),
    Row("reset before headers for ever", "any", {"reset_after": 0}, stays=True),
    Row("done, then reset before headers", "write", {"reset_after": 0, "perform": True}),
    Row("reset in headers", "any", raw("HTTP/1.1 200 OK\nContent-Le", "reset")),
    Row("closed in headers", "any", raw("HTTP/1.1 200 OK\nContent-Le")),
    Row("reset in the body", "read", {"reset_after": 7}),
    Row("reset in every body", "read", {"reset_after": 7}, stays=True),
    Row("reset in the body of a request", "upload", {"cut_upload_after": 1000}),
    Row("reset in the body of every request", "upload", {"cut_upload_after": 1000}, stays=True),
    Row("reset in the body of a chunk", "chunk", {"cut_upload_after": 1000}),
    Row("truncated", "read", {"truncate_after": 9}),
    Row("always truncated", "read", {"truncate_after": 9}, stays=True),
    Row("nothing before the headers", "any", {"delay": 2.0}),
    Row("stalls in the body", "read", {"stall_after": 5}),
    Row("always stalls in the body", "blob", {"stall_after": 5}, stays=True),
    # Trickles and floods: 37 to 48.
    Row("headers drip", "any", raw(OK + "X: " + "y" * 4000, "drip", drip=0.05)),
    Row("the body drips", "read", {"drip": 0.3}),
    Row("100 Continue for ever", "any", raw("HTTP/1.1 100 Continue\n\n", "repeat", piece=b"HTTP/1.1 100 Continue\r\n\r\n" * 500)),
    Row("headers that never end", "any", raw(OK, "repeat", piece=b"X-More: yes\r\n" * 500)),
    Row("a header line that never ends", "any", raw(OK + "X: ", "repeat", piece=b"y" * 65536)),
    Row("a document that never ends", "read", raw(OK + "Content-Type: application/json\nConnection: close\n\n", "repeat", piece=b" " * 65536)),
    Row("a length of 19 digits", "read", raw(OK + "Content-Length: 9223372036854775807\n\n[", "stall")),
    Row("a length below zero", "read", raw(OK + "Content-Length: -1\n\n")),
    Row("two lengths", "read", raw(OK + "Content-Length: 2\nContent-Length: 3\n\n{}")),
    Row("chunks of a wrong size", "read", raw(OK + "Transfer-Encoding: chunked\n\nzz\n{}\n0\n\n")),
    Row("no HTTP at all", "any", raw("SSH-2.0-OpenSSH_9.2\n")),
    Row("the answer twice", "read", {"twice": True}),
    # Wrong content: 49 to 66.
    Row("a wrong byte", "read", {"corrupt_at": 3}),
    Row("a wrong byte every time", "read", {"corrupt_at": 3}, stays=True),
    Row("200 for a range", "blob", {"replace_status": 200, "replace_headers": {"Content-Range": ""}}),
    Row("206 unasked", "blob", {"replace_status": 206}),
    Row("a wrong Content-Range", "blob", {"replace_status": 206, "replace_headers": {"Content-Range": "bytes 5-9/10"}}),
    Row("an empty body", "read", {"replace_body": b""}),
    Row("an empty body every time", "read", {"replace_body": b""}, stays=True),
    Row("another body", "read", {"replace_body": b'{"schemaVersion": 2}'}),
    Row("a page of HTML", "read", HTML),
    Row("a page of HTML every time", "read", HTML, stays=True),
    Row("JSON of 100,000 levels", "read", {"replace_body": b"[" * 100_000}, stays=True),
    Row("a list where a document should be", "read", {"replace_body": b"[1, 2]"}, stays=True),
    Row("gzip, unasked and untrue", "read", {"replace_headers": {"Content-Encoding": "gzip"}}),
    Row("another media type", "manifest", {"replace_headers": {"Content-Type": "text/plain"}}),
    Row("no media type", "manifest", {"replace_headers": {"Content-Type": ""}}),
    Row("a wrong digest header", "manifest", {"replace_headers": {"Docker-Content-Digest": ZEROS}}),
    Row("no digest header", "manifest", {"replace_headers": {"Docker-Content-Digest": ""}}),
    Row("a digest header that is none", "manifest", {"replace_headers": {"Docker-Content-Digest": "../../etc"}}),
    # HEAD lies: 67 to 79.
    Row("HEAD refused", "manifest HEAD", answer(405), stays=True),
    Row("HEAD without a digest", "manifest HEAD", {"replace_headers": {"Docker-Content-Digest": ""}}, stays=True),
    Row("HEAD without a length", "manifest HEAD", {"replace_headers": {"Content-Length": ""}}, stays=True),
    Row("HEAD with another digest", "manifest HEAD", {"replace_headers": {"Docker-Content-Digest": ZEROS}}, stays=True, unseen=lies(SAYS_OTHER, "describe")),
    Row("HEAD with a length of letters", "manifest HEAD", {"replace_headers": {"Content-Length": "many"}}, stays=True),
    Row("HEAD says a manifest is missing", "manifest HEAD", answer(404), stays=True, unseen=lies(SAYS_MISSING, "describe", "mirror")),
    Row("HEAD says a manifest is there", "manifest HEAD", {**answer(200, "", Docker_Content_Digest="{name}", Content_Length="500", Content_Type="application/vnd.oci.image.manifest.v1+json")}, unseen=lies(SAYS_THERE, *WRITES, "plan")),
    Row("HEAD of a blob refused", "blob HEAD", answer(403), stays=True),
    Row("HEAD of a blob says missing", "blob HEAD", answer(404), stays=True),
    Row("HEAD of a blob says it is there", "blob HEAD", answer(200, Content_Length="100")),
    Row("HEAD of a blob always says it is there", "blob HEAD", answer(200, Content_Length="100"), stays=True),
    Row("HEAD of a blob has no length", "blob HEAD", {"replace_headers": {"Content-Length": ""}}, stays=True),
    Row("HEAD of a blob has another length", "blob HEAD", {"replace_headers": {"Content-Length": "77"}}),
    # Logins: 80 to 86.
    Row("401 without a challenge", "any", answer(401, "UNAUTHORIZED")),
    Row("401 for ever", "any", answer(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="storm"'), stays=True),
    Row("401 in mid-upload", "upload", answer(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="storm"')),
    Row("401 with a realm of another host", "any", answer(401, WWW_Authenticate='Bearer realm="http://169.254.169.254/token",service="x"')),
    Row("401 with a challenge of 60,000 letters", "any", answer(401, WWW_Authenticate="Bearer " + 'a="' * 20_000)),
    Row("403", "any", answer(403, "DENIED")),
    Row("403 for ever", "any", answer(403, "DENIED"), stays=True),
    # Redirects: 87 to 95.
    Row("a redirect to itself", "read", answer(307, Location="{path}"), stays=True),
    Row("a redirect to the metadata service", "read", answer(307, Location="http://169.254.169.254/latest/meta-data/"), stays=True),
    Row("a redirect to a file", "read", answer(302, Location="file:///etc/passwd"), stays=True),
    Row("a redirect to nowhere", "read", answer(302, Location="http://[::1"), stays=True),
    Row("a redirect without a Location", "read", answer(301)),
    Row("a redirect once", "read", answer(307, Location="http://{host}{path}")),
    Row("a redirect of a write", "write", answer(307, Location="http://{host}{path}")),
    Row("a redirect of a write for ever", "write", answer(308, Location="{path}"), stays=True),
    Row("a 300 with choices", "read", answer(300)),
    # Uploads: 96 to 114.
    Row("the session is lost", "upload", answer(404, "BLOB_UPLOAD_UNKNOWN")),
    Row("the session is always lost", "upload", answer(404, "BLOB_UPLOAD_UNKNOWN"), stays=True),
    Row("the session of a chunk is lost", "chunk", answer(404, "BLOB_UPLOAD_INVALID")),
    Row("500 though a chunk was taken", "chunk", {**answer(500), "perform": True}),
    Row("416 to a chunk", "chunk", answer(416, Range="0-0")),
    Row("chunks refused", "chunk", answer(405, "UNSUPPORTED"), stays=True),
    Row("500 though it succeeded", "write", {**answer(500, "UNKNOWN"), "perform": True}),
    Row("503 though it succeeded", "write", {**answer(503), "perform": True}),
    Row("DIGEST_INVALID once", "upload", answer(400, "DIGEST_INVALID")),
    Row("413 to a body", "upload", answer(413)),
    Row("413 to every body", "upload", answer(413), stays=True),
    Row("an upload without a Location", "start", answer(202)),
    Row("an upload elsewhere", "start", answer(202, Location="http://169.254.169.254/v2/x/blobs/uploads/1")),
    Row("an upload at a path of its own", "start", answer(202, Location="/v2/../../etc/passwd")),
    Row("a blob taken and not kept", "upload", answer(201)),
    Row("every blob taken and none kept", "upload", answer(201), stays=True),
    Row("a blob with another digest", "upload", {"replace_headers": {"Docker-Content-Digest": ZEROS}}),
    Row("a start that says 201", "start", answer(201)),
    Row("the smallest chunk is of 18 digits", "start", {"replace_headers": {"OCI-Chunk-Min-Length": "9" * 18}}, stays=True),
    # Mounts: 115 to 120.
    Row("a mount is 401", "mount", answer(401, "UNAUTHORIZED")),
    Row("a mount is 403", "mount", answer(403, "DENIED"), stays=True),
    Row("a mount is 500", "mount", answer(500), stays=True),
    Row("a mount is 202 without a Location", "mount", answer(202), stays=True),
    Row("a mount is 201, and untrue", "mount", answer(201)),
    Row("every mount is 201, and untrue", "mount", answer(201), stays=True),
    # Manifests pushed: 121 to 129.
    Row("MANIFEST_BLOB_UNKNOWN once", "push", answer(400, "MANIFEST_BLOB_UNKNOWN")),
    Row("MANIFEST_BLOB_UNKNOWN for ever", "push", answer(404, "MANIFEST_BLOB_UNKNOWN"), stays=True),
    Row("a manifest is invalid", "push", answer(400, "MANIFEST_INVALID"), stays=True),
    Row("a manifest becomes another", "push", {"replace_headers": {"Docker-Content-Digest": ZEROS}}),
    Row("a manifest without a digest", "push", {"replace_headers": {"Docker-Content-Digest": ""}}, stays=True),
    Row("a manifest with 204", "push", {"replace_status": 204}),
    Row("a tag is immutable", "push", answer(409, "TAG_INVALID"), stays=True),
    Row("a manifest taken and not kept", "push", answer(201), unseen=lies(NOT_KEPT, *WRITES, "copy and verify")),
    Row("a manifest is too large", "push", answer(413, "MANIFEST_INVALID"), stays=True),
    # Lists: 130 to 142.
    Row("tags: 404", "tags", answer(404, "NAME_UNKNOWN"), unseen=lies(SHORT_LIST, "tag list", "verify", "mirror", "prune")),
    Row("tags: null", "tags", {"replace_body": b'{"tags": null}'}, unseen=lies(SHORT_LIST, "tag list", "verify", "mirror", "prune")),
    Row("tags: numbers", "tags", {"replace_body": b'{"tags": [1, 2]}'}, stays=True),
    Row("tags that are none", "tags", {"replace_body": b'{"tags": ["../../x", "\\u001b[31m"]}'}, unseen=lies(SHORT_LIST, "tag list", "verify", "mirror", "prune")),
    Row("tags: cut short", "tags", {"replace_body": b'{"tags": ["v1"]}'}, unseen=lies(SHORT_LIST, "tag list", "verify", "mirror", "prune")),
    Row("a Link to itself", "tags", {"replace_headers": {"Link": '<{path}>; rel="next"'}}, stays=True),
    Row("a Link to another host", "tags", {"replace_headers": {"Link": '<http://169.254.169.254/v2/x>; rel="next"'}}),
    Row("a Link to another repository", "tags", {"replace_headers": {"Link": '</v2/other/repo/tags/list>; rel="next"'}}),
    Row("a Link that can't be read", "tags", {"replace_headers": {"Link": '<http://[>; rel="next"'}}),
    Row("n= refused", "tags", answer(400, "PAGINATION_NUMBER_INVALID")),
    Row("referrers: 404", "referrers", answer(404), unseen={"mirror": "a referrer isn't listed"}),
    Row("referrers: 403", "referrers", answer(403)),
    Row("referrers: a Link to itself", "referrers", {"replace_headers": {"Link": '<{path}>; rel="next"'}}, stays=True),
    Row("referrers: not an index", "referrers", {"replace_body": b'{"manifests": "none"}'}, stays=True),
    # Deletions: 144 to 149.
    Row("a deletion is 405", "delete", answer(405, "UNSUPPORTED"), stays=True),
    Row("a deletion is 404", "delete", answer(404, "MANIFEST_UNKNOWN")),
    Row("a deletion is 500", "delete", answer(500), stays=True),
    Row("a deletion answered, and not done", "delete", answer(202), unseen={"prune": "a deletion was answered with 202 and not done"}),
    Row("a deletion done, and 500", "delete", {**answer(500), "perform": True}),
    Row("a deletion done, and 404", "delete", {**answer(404), "perform": True}),
    # What is there isn't: 150 to 156.
    Row("a manifest is missing", "manifest", answer(404, "MANIFEST_UNKNOWN")),
    Row("manifests are missing", "manifest", answer(404, "MANIFEST_UNKNOWN"), stays=True),
    Row("a blob is missing", "blob", answer(404, "BLOB_UNKNOWN")),
    Row("blobs are missing", "blob", answer(404, "BLOB_UNKNOWN"), stays=True),
    Row("410", "read", answer(410), stays=True),
    Row("451", "read", answer(451), stays=True),
    Row("a date of another century", "any", {"replace_headers": {"Date": "Mon, 01 Jan 1900 00:00:00 GMT"}}, stays=True),
)  # fmt: skip
