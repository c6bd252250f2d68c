"""What is done in a storm: each operation of the library, what it writes, and how its end is proven from outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oci import library
from oci.export.export import write_archive
from oci.export.planner import plan_archive
from oci.mirror.run import run_mirror
from oci.mirror.run_state import Shared
from oci.prune.policy import Keep
from oci.prune.survey import NOTE_TAG
from oci.relocation.planner import make_plan
from oci.relocation.session import Session
from tests.storm.stage import Stage
from tests.support import content
from tests.support.mirroring import mirror_of


class Reported(Exception):
    """What failed stands in the result, without an exception."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`run` gets the session and a name of its own, and gives a result; `proof` lists what is wrong after it ended
    well, `ruins` what stands half-made under a final name after it didn't."""

    name: str
    sides: Sequence[str]
    run: Callable[[Stage, Session, str], Any]
    proof: Callable[[Stage, str, Any], list[str]]
    ruins: Callable[[Stage, str], list[str]]
    prepare: Callable[[Stage, str], None] = lambda _stage, _name: None
    writes: bool = True
    settings: tuple[tuple[str, Any], ...] = ()
    patience: float = 1.0
    """How much longer than others it may take."""

    @property
    def what(self) -> str:
        """What is done, whoever begins it: "copy" of "copy, flow"."""
        return self.name.partition(", ")[0]

    @property
    def is_of_library(self) -> bool:
        return self.what == self.name

    @property
    def judged_by_rehearsal(self) -> bool:
        return not self.writes or self.what == "push"


def _nothing(stage: Stage, name: str) -> list[str]:
    del stage, name
    return []


def _half_made(stage: Stage, name: str) -> list[str]:
    return stage.walkers["destination"].half_made(name)


def _copy(verify: str = "none", side: str = "source") -> Callable[[Stage, Session, str], Any]:
    def run(stage: Stage, session: Session, name: str) -> Any:
        to = stage.at("destination", name)
        return library.copy(stage.bundle_at(side), to, verify=verify, session=session)

    return run


def _copied(side: str = "source") -> Callable[[Stage, str, Any], list[str]]:
    def proof(stage: Stage, name: str, result: Any) -> list[str]:
        del result
        return _named(stage, name, {"v1": stage.bundles[side].digest})

    return proof


def _named(stage: Stage, name: str, wanted: dict[str, str]) -> list[str]:
    walker = stage.walkers["destination"]
    tags = walker.tags(name)
    wrong = [f"{tag} shows {tags.get(tag)}" for tag, digest in wanted.items() if tags.get(tag) != digest]
    return [*wrong, *walker.half_made(name)]


def _plan(stage: Stage, session: Session, name: str) -> Any:
    plan = library.plan(stage.bundle_at("source"), stage.at("destination", name), session=session)
    if plan.failures:
        raise Reported("\n".join(f"source {failure.subject}: {failure.message}" for failure in plan.failures))
    return (
        plan.root,
        plan.tags,
        tuple((one.digest, one.present, one.tags) for one in plan.manifests),
        tuple(blob.digest for blob in plan.blobs),
    )


def _like_before(operation: str) -> Callable[[Stage, str, Any], list[str]]:
    def proof(stage: Stage, name: str, result: Any) -> list[str]:
        del name
        before = stage.results.setdefault(operation, result)
        return [] if result == before else [f"{result!r} instead of {before!r}"]

    return proof


def _files(stage: Stage) -> str:
    folder = stage.folder / "files"
    if not folder.exists():
        (folder / ".imgpkg").mkdir(parents=True)
        (folder / ".imgpkg" / "images.yml").write_text("apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n")
        (folder / "data").write_bytes(content.noise(7, 120_000).data)
    return str(folder)


def _push(stage: Stage, session: Session, name: str) -> Any:
    return library.push(stage.at("destination", f"{name}:v1"), _files(stage), bundle=True, session=session)


def _pushed(stage: Stage, name: str, result: Any) -> list[str]:
    digest = str(stage.results.setdefault("push", result.reference.digest))
    return _named(stage, name, {"v1": digest})


def _pull(stage: Stage, session: Session, name: str) -> Any:
    folder = stage.folder / name
    library.pull(stage.bundle_at("source"), str(folder), session=session)
    return _contents(folder)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _half_pulled(stage: Stage, name: str, operation: str = "pull") -> list[str]:
    whole: Any = stage.results.get(operation, {})
    there = _contents(stage.folder / name)
    return [path for path, data in there.items() if whole.get(path) != data]


def _archive(stage: Stage, name: str) -> Path:
    return stage.folder / f"{name}.tar"


def _export(stage: Stage, session: Session, name: str) -> Any:
    path = _archive(stage, name)
    request = library.request_of(stage.bundle_at("source"), f"archive:{path}")
    write_archive(session, plan_archive(session, request, make_plan(session, request), None), resume=True)
    return content.digest_of(path.read_bytes())


def _half_exported(stage: Stage, name: str) -> list[str]:
    path = _archive(stage, name)
    return [str(path)] if path.exists() else []


def _make_archive(stage: Stage, name: str) -> None:
    del name
    path = _archive(stage, "whole")
    if not path.exists():
        with stage.session(hurry=False) as session:
            library.copy(stage.bundle_at("source"), f"archive:{path}", session=session)


def _import(stage: Stage, session: Session, name: str) -> Any:
    return library.copy(f"archive:{_archive(stage, 'whole')}", stage.at("destination", name), session=session)


def _mirror(stage: Stage, session: Session, name: str) -> Any:
    mirror = mirror_of(stage.at("source", "shop/web"), stage.at("destination", name), artifacts=["cosign", "referrers"])
    report = run_mirror(session, mirror, Shared())
    if report.nothing_taken:
        raise Reported(f"source {report.source}: {report.nothing_taken}")
    if not report.succeeded:
        raise Reported("\n".join(f"{one.names} {one.error}" for one in report.failed))
    return report


def _mirrored(stage: Stage, name: str, result: Any) -> list[str]:
    del result
    tags = {"v1": stage.web, "v2": stage.tools, content.signature_tag(stage.web): stage.signature}
    wrong = _named(stage, name, {tag: one.digest for tag, one in tags.items()})
    return [*wrong, *stage.walkers["destination"].missing(name, stage.sbom.digest)]


def _verify(stage: Stage, session: Session, name: str) -> Any:
    del name
    found = library.verify(stage.at("destination", "shop/whole"), session=session)
    if found.problems:
        raise Reported("\n".join(f"destination {problem}" for problem in found.problems))
    return found.manifests, found.blobs


def _make_unwanted(stage: Stage, name: str) -> None:
    content.push(stage.url("destination"), name, stage.web, "v1")
    content.push(stage.url("destination"), name, stage.old, "old", "older")
    content.push(stage.url("destination"), name, stage.tools, "v2")


def _prune(stage: Stage, session: Session, name: str) -> Any:
    plan = library.plan_prune(stage.at("destination", name), Keep(tags=("v1", "v2")), session=session)
    report = library.execute_prune(plan, session=session)
    left = [*report.failed, *report.refused, *report.skipped]
    if left:
        raise Reported("\n".join(f"destination {report.destination}: {one.subject}: {one.reason}" for one in left))
    return report


def _pruned(stage: Stage, name: str, result: Any) -> list[str]:
    del result
    walker = stage.walkers["destination"]
    left = [tag for tag in walker.tags(name) if tag not in ("v1", "v2", NOTE_TAG)]
    there = [stage.old.digest] if walker.has_manifest(name, stage.old.digest) else []
    return [*left, *there, *_kept(stage, name)]


def _kept(stage: Stage, name: str) -> list[str]:
    """What a prune may never take."""
    walker = stage.walkers["destination"]
    tags = walker.tags(name)
    gone = [tag for tag, one in (("v1", stage.web), ("v2", stage.tools)) if tags.get(tag) != one.digest]
    return [*gone, *walker.missing(name, stage.web.digest), *walker.missing(name, stage.tools.digest)]


def _list(stage: Stage, session: Session, name: str) -> Any:
    del name
    return library.tags(stage.at("source", "shop/whole"), session=session)


def _describe(stage: Stage, session: Session, name: str) -> Any:
    del name
    return library.describe(stage.bundle_at("source"), session=session)


BOTH, TO, FROM = ("source", "destination"), ("destination",), ("source",)

OPERATIONS: tuple[Operation, ...] = (
    Operation("plan", BOTH, _plan, _like_before("plan"), _nothing, writes=False),
    Operation("copy", BOTH, _copy(), _copied(), _half_made),
    Operation("copy in chunks", TO, _copy(), _copied(), _half_made, settings=(("chunk_size", 65536),)),
    Operation("copy beside", TO, _copy(side="destination"), _copied("destination"), _half_made),
    Operation("copy and verify", TO, _copy("head"), _copied(), _half_made),
    Operation("push", TO, _push, _pushed, _half_made),
    Operation("pull", FROM, _pull, _like_before("pull"), _half_pulled, writes=False),
    Operation("export", FROM, _export, _like_before("export"), _half_exported, writes=False),
    Operation("import", TO, _import, _copied(), _half_made, prepare=_make_archive),
    Operation("mirror", BOTH, _mirror, _mirrored, _half_made),
    Operation("verify", TO, _verify, _like_before("verify"), _nothing, writes=False),
    Operation("prune", TO, _prune, _pruned, _kept, prepare=_make_unwanted),
    Operation("tag list", FROM, _list, _like_before("tag list"), _nothing, writes=False),
    Operation("describe", FROM, _describe, _like_before("describe"), _nothing, writes=False),
)


def by_name(name: str) -> Operation:
    return next(one for one in OPERATIONS if one.name == name)


def clean_up(stage: Stage, name: str) -> None:
    import shutil

    shutil.rmtree(stage.folder / name, ignore_errors=True)
    if os.path.exists(path := _archive(stage, name)):
        os.unlink(path)
