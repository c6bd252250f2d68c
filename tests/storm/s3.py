# ruff: noqa: E501 - a row is a line
"""The same for object stores: faults before SeaweedFS, while an archive is written there, imported from there, verified."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from oci import library
from oci.archive.inventory import verify_archive
from oci.archive.options import ExportOptions
from oci.errors import Incomplete, StoreError, TransshipError
from oci.export.export import write_archive
from oci.export.planner import plan_archive
from oci.reference import ArchiveName
from oci.relocation.planner import make_plan
from oci.relocation.session import Access, Session
from tests.faults.proxy import FaultProxy
from tests.servers.seaweedfs import BUCKET, ObjectStore
from tests.servers.strict_registry import StrictRegistry
from tests.storm.faults import Row, raw
from tests.storm.operations import Reported
from tests.storm.trial import LONGEST, Kind, Outcome, Trial
from tests.storm.walk import Walker
from tests.support import content
from tests.support.relocating import anonymous

PLACES: Mapping[str, tuple[str, str]] = {
    "part": ("PUT", r"partNumber="),
    "begin": ("POST", r"[?&]uploads"),
    "complete": ("POST", r"[?&]uploadId="),
    "head": ("HEAD", r"."),
    "read": ("GET", r"^/[^?]*(\?x-id|$)"),
    "list": ("GET", r"\?.*(uploads|uploadId|list-type)"),
    "abort": ("DELETE", r"[?&]uploadId="),
    "any": (".*", r"."),
    "write": ("PUT|POST", r"."),
}


def xml(status: int, code: str, **more: Any) -> dict[str, Any]:
    body = f"<Error><Code>{code}</Code><Message>words of the store</Message></Error>".encode()
    return {"status": status, "body": body, "headers": {"Content-Type": "application/xml"}, **more}


OTHER = {"ETag": f'"{"0" * 32}"', "x-amz-checksum-crc32": ""}
OK = "HTTP/1.1 200 OK\n"
ROWS: tuple[Row, ...] = (
    Row("S3: 500 InternalError", "any", xml(500, "InternalError")),
    Row("S3: 500 for ever", "any", xml(500, "InternalError"), stays=True),
    Row("S3: 503 SlowDown", "any", xml(503, "SlowDown")),
    Row("S3: 503 SlowDown for ever", "any", xml(503, "SlowDown"), stays=True),
    Row("S3: 403 AccessDenied", "any", xml(403, "AccessDenied"), stays=True),
    Row("S3: 403 RequestTimeTooSkewed", "any", xml(403, "RequestTimeTooSkewed"), stays=True),
    Row("S3: 403 ExpiredToken", "any", xml(403, "ExpiredToken"), stays=True),
    Row("S3: 400 without a body", "any", {"status": 400}, stays=True),
    Row("S3: 404 NoSuchUpload", "part", xml(404, "NoSuchUpload")),
    Row("S3: 404 NoSuchBucket", "any", xml(404, "NoSuchBucket"), stays=True),
    Row("S3: 409 conflict", "complete", xml(409, "ConditionalRequestConflict")),
    Row("S3: 412 precondition", "complete", xml(412, "PreconditionFailed"), stays=True),
    Row("S3: 501 to a condition", "complete", xml(501, "NotImplemented")),
    Row("S3: 200 with an error inside", "complete", {**xml(200, "InternalError")}),
    Row("S3: completed, then a reset", "complete", {"reset_after": 0, "perform": True}),
    Row("S3: completed, and 500", "complete", xml(500, "InternalError", perform=True)),
    Row("S3: a part stored, then a reset", "part", {"reset_after": 0, "perform": True}),
    Row("S3: a part with another ETag", "part", {"replace_headers": OTHER}),
    Row("S3: every part with another ETag", "part", {"replace_headers": OTHER}, stays=True),
    Row("S3: reset in the body of a part", "part", {"cut_upload_after": 100_000}),
    Row("S3: reset before headers", "any", {"reset_after": 0}),
    Row("S3: reset in the body", "read", {"reset_after": 1000}),
    Row("S3: truncated", "read", {"truncate_after": 1000}),
    Row("S3: always truncated", "read", {"truncate_after": 1000}, stays=True),
    Row("S3: a wrong byte", "read", {"corrupt_at": 700}),
    Row("S3: a wrong byte every time", "read", {"corrupt_at": 700}, stays=True),
    Row("S3: an empty body", "read", {"replace_body": b""}, stays=True),
    Row("S3: 200 for a range", "read", {"replace_status": 200, "replace_headers": {"Content-Range": ""}}),
    Row("S3: stalls", "read", {"stall_after": 100}),
    Row("S3: no answer", "any", {"delay": 3.0}),
    Row("S3: HEAD says it isn't there", "head", {"status": 404}),
    Row("S3: HEAD refused", "head", {"status": 403}, stays=True),
    Row("S3: lists that aren't XML", "list", {"replace_body": b"{}"}, stays=True),
    Row("S3: a list of HTML", "list", {"replace_body": b"<html><body>log in</body></html>"}, stays=True),
    Row("S3: no HTTP at all", "any", raw("SSH-2.0-OpenSSH_9.2\n")),
    Row("S3: a redirect to the metadata service", "any", {"status": 307, "headers": {"Location": "http://169.254.169.254/latest/"}}, stays=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    side: str
    run: Callable[[Shore, Session, str], Any]
    proof: Callable[[Shore, str, Any], list[str]]
    ruins: Callable[[Shore, str], list[str]]


class Shore:
    """A registry in memory, an object store, and the proxy before it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._stack = ExitStack()
        self._count = 0
        self.requests: dict[str, list[tuple[str, str]]] = {}
        self.whole = b""

    def __enter__(self) -> Self:
        self.registry = self._stack.enter_context(StrictRegistry())
        self.proxy = self._stack.enter_context(FaultProxy(self.store.port))
        self.image = content.image(1, layers=(content.noise(1, 6 << 20), content.noise(2, 5 << 20)))
        content.push(self.registry.url, "shop/web", self.image, "v1")
        self.walker = Walker(self.registry.url, {})
        self._stack.callback(self.walker.http.close)
        for operation in OPERATIONS:
            self.proxy.seen.clear()
            name = self.fresh()
            with self.session(hurry=False) as session:
                result = operation.run(self, session, name)
            if not self.whole:
                self.whole = self.store.get(self.location(name))
                self.store.put(self.location("whole"), self.whole)
            wrong = operation.proof(self, name, result)
            assert not wrong, f"{operation.name}: {wrong}"
            self.requests[operation.name] = [(method, path) for _, method, path in self.proxy.seen]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def fresh(self) -> str:
        self._count += 1
        return f"shore{self.registry.port}-{self._count}"

    def location(self, name: str) -> str:
        return f"s3://{BUCKET}/{name if name != 'whole' else f'whole{self.registry.port}'}/shop.tar"

    def session(self, *, hurry: bool) -> Session:
        settings = self.store.settings.with_(endpoint=self.proxy.url, **({"timeout": 1.0, "tries": 2} if hurry else {}))
        base = anonymous(state=False)
        access = Access(credentials=base.credentials, default=base.default, s3=settings)
        return Session(source=access, destination=access, concurrency=4)

    def trials(self) -> list[Trial]:
        found = []
        for row in ROWS:
            method, path = PLACES[row.place]
            for one in OPERATIONS:
                count = sum(
                    bool(re.fullmatch(method, verb) and re.search(path, at)) for verb, at in self.requests[one.name]
                )
                places = {1: "first", (count + 1) // 2: "middle", count: "last"} if count else {}
                found += [Trial(row, one.name, one.side, at, places[at]) for at in sorted(places) if at]
        return found

    def play(self, trial: Trial) -> Outcome:
        """See `tests.storm.trial.play`."""
        operation = next(one for one in OPERATIONS if one.name == trial.operation)
        name, started = self.fresh(), time.monotonic()
        try:
            kind, note = self._judged(operation, trial, name)
        except Exception:  # noqa: BLE001 - whatever the program or the trial does
            kind, note = Kind.OTHER, traceback.format_exc()
        finally:
            self.proxy.rules.clear()
        self.store.client.delete_object(Bucket=BUCKET, Key=f"{name}/shop.tar")
        return Outcome(trial, kind, note, time.monotonic() - started)

    def _judged(self, operation: Operation, trial: Trial, name: str) -> tuple[Kind, str]:
        method, path = PLACES[trial.row.place]
        fault = trial.row.fault(trial.number, method, path)
        self.proxy.rules[:] = [fault]
        started, problems = time.monotonic(), []
        try:
            with self.session(hurry=True) as session:
                result = operation.run(self, session, name)
        except (TransshipError, Reported) as error:
            said: Exception = error
            problems += _unclean(error, trial.side)
        else:
            wrong = operation.proof(self, name, result)
            if time.monotonic() - started > LONGEST:
                wrong.append("took too long")
            return (Kind.OTHER, f"ended well, and isn't: {wrong}") if wrong else (Kind.COMPLETED, "")
        if (took := time.monotonic() - started) > LONGEST:
            problems.append(f"took {took:.0f} s")
        self.proxy.rules.clear()
        problems += [f"half-made after {said}: {ruin}" for ruin in operation.ruins(self, name)]
        problems += [] if problems else self._again(operation, name)
        return (Kind.OTHER, "\n".join(problems)) if problems else (Kind.CLEAN, str(said))

    def _again(self, operation: Operation, name: str) -> list[str]:
        location = self.location(name)
        stored = {str(part) for upload in self.store.uploads(location) for part in self.store.parts(location, upload)}
        self.proxy.seen.clear()
        try:
            with self.session(hurry=False) as session:
                result = operation.run(self, session, name)
        except (TransshipError, Reported) as error:
            return [f"the second run failed: {error}"]
        sent = {
            found.group(1)
            for _, verb, path in self.proxy.seen
            if verb == "PUT" and (found := re.search(r"partNumber=(\d+)", path))
        }
        return [
            *operation.proof(self, name, result),
            *(f"part {number} was sent again" for number in sorted(sent & stored)),
        ]


def _unclean(error: Exception, side: str) -> list[str]:
    """What the error doesn't say. The address of an archive says which side it is; errors of a store name both."""
    parts: Sequence[Exception] = error.failures if isinstance(error, Incomplete) and error.failures else (error,)
    return [
        f"{type(part).__name__} doesn't name {word}: {part}"
        for part in parts
        for word in ((side, "s3://") if isinstance(part, StoreError) else ("s3://",))
        if word not in str(part)
    ]


def _export(shore: Shore, session: Session, name: str) -> Any:
    request = library.request_of(f"{shore.registry.host}/shop/web:v1", f"archive:{shore.location(name)}")
    options = ExportOptions(part_size=5 << 20)
    return write_archive(session, plan_archive(session, request, make_plan(session, request), options), resume=True)


def _exported(shore: Shore, name: str, result: Any) -> list[str]:
    del result
    there = shore.store.get(shore.location(name))
    return [] if there == (shore.whole or there) else [f"{len(there)} other bytes"]


def _half_exported(shore: Shore, name: str) -> list[str]:
    return _exported(shore, name, None) if shore.store.head(shore.location(name)) is not None else []


def _import(shore: Shore, session: Session, name: str) -> Any:
    return library.copy(f"archive:{shore.location('whole')}", f"{shore.registry.host}/{name}", session=session)


def _imported(shore: Shore, name: str, result: Any) -> list[str]:
    del result
    shown = shore.walker.tags(name).get("v1")
    return [*([] if shown == shore.image.digest else [f"v1 shows {shown}"]), *shore.walker.half_made(name)]


def _verify(shore: Shore, session: Session, name: str) -> Any:
    del name
    archive = session.archive(ArchiveName.of(shore.location("whole")), "destination", anew=True)
    verdict = verify_archive(archive, session.workers, deep=True)
    if verdict.problems:
        raise Reported("\n".join(verdict.problems))
    return verdict


OPERATIONS: tuple[Operation, ...] = (
    Operation("export to S3", "destination", _export, _exported, _half_exported),
    Operation("import from S3", "source", _import, _imported, lambda shore, name: shore.walker.half_made(name)),
    Operation("verify in S3", "destination", _verify, lambda *_: [], lambda *_: []),
)
