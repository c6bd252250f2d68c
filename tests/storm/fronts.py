"""The operations as people and schedules begin them: by the command, each in a process, and by a flow of Prefect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flows import AfterPlan, MirrorParameters, MirrorsConfig, PruneParameters, RelocateParameters
from flows.parameters.relocate import SourceKind
from oci.errors import InvalidInput
from oci.options import fields_of
from oci.prune.policy import KeepOptions
from oci.registry.options import RegistryOptions
from oci.relocation.request import CopyOptions
from oci.relocation.session import Session
from tests.storm import operations
from tests.storm.operations import Operation, Reported, by_name
from tests.storm.stage import IN_A_HURRY, Stage
from tests.support import content
from tests.support.command import transship

CODES = (0, 1, 3)
"""Done, failed, partly: nothing else may come of a fault at a registry."""

_FLAGS = {field.name: field.flag for field in fields_of(RegistryOptions)}
_SIZES = ("minimum_rate",)
_COUNTS = ("retries",)


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """Of registries, as the command has them: durations have a unit."""
    units = {name: "B" if name in _SIZES else "" if name in _COUNTS else "s" for name in settings}
    return [f"{_FLAGS[name]}={value}{units[name]}" for name, value in settings.items()]


def _commanded(arguments: Callable[[Stage, str], Sequence[str]], result: Callable[[Stage, str, str], Any]) -> Any:
    """Runs the command; `result` is made of stage, name and standard output."""

    def run(stage: Stage, session: Session, name: str) -> Any:
        del session
        hurry = _flags(IN_A_HURRY) if stage.in_a_hurry else []
        done = transship(*arguments(stage, name), "--no-state", "--registry-anon", *hurry)
        assert "Traceback" not in done.err, done.err
        if done.code == 2 and "that the policy names" in done.err:
            # A kept tag that the registry says isn't there can't be told from a name that is misspelled.
            raise InvalidInput(done.err)
        assert done.code in CODES, f"exit code {done.code}: {done.err}"
        if done.code:
            # A command with one side says which it is by its name.
            raise Reported(f"destination {done.err}" if arguments(stage, name)[0] == "verify" else done.err)
        return result(stage, name, done.out)

    return run


def _no_result(stage: Stage, name: str, out: str) -> None:
    del stage, name, out


def _output(stage: Stage, name: str, out: str) -> str:
    del stage
    return out.replace(name, "NAME")


def _amounts(stage: Stage, name: str, out: str) -> Any:
    del stage, name
    said = json.loads(out)
    return {key: value for key, value in said.items() if isinstance(value, int)}


def _manifests(stage: Stage, name: str, out: str) -> list[str]:
    """The lines of a plan but for its requests, of which there are more after a failed one."""
    return [line for line in _output(stage, name, out).splitlines() if "@sha256:" in line]


def _nothing_left(stage: Stage, name: str, out: str) -> None:
    """What isn't as it was planned is left alone, which is no failure."""
    result = json.loads(out)["Result"]
    left = [*result["refused"], *result["skipped"]]
    if left:
        where = f"destination {_to(stage, name)}"
        raise Reported("\n".join(f"{where}: {one['subject']}: {one['reason']}" for one in left))


def _mirrors(stage: Stage, name: str) -> str:
    """The file with the mirror, which `operations` runs by the library."""
    path = stage.folder / f"{name}.yaml"
    path.write_text(json.dumps(_mirrors_document(stage, name)))
    return str(path)


def _mirrors_document(stage: Stage, name: str) -> dict[str, Any]:
    mirror = {
        "name": "web",
        "source": {"repository": stage.at("source", "shop/web")},
        "destinations": [{"repository": stage.at("destination", name)}],
        "artifacts": ["cosign", "referrers"],
    }
    return {"version": 1, "mirrors": [mirror]}


def _archived(stage: Stage, name: str, out: str) -> str:
    del out
    return content.digest_of(operations._archive(stage, name).read_bytes())


def _pulled(stage: Stage, name: str, out: str) -> dict[str, bytes]:
    del out
    return operations._contents(stage.folder / name)


def _ended_well(stage: Stage, name: str, result: Any) -> list[str]:
    del result
    return operations._named(stage, name, {"v1": str(stage.results["push, command"])})


def _pushed(stage: Stage, name: str, out: str) -> str:
    del out
    shown = stage.walkers["destination"].tags(name)["v1"]
    return str(stage.results.setdefault("push, command", shown))


def _command(name: str, arguments: Callable[[Stage, str], Sequence[str]], result: Any = _no_result) -> Operation:
    one = by_name(name)
    proof = one.proof if one.writes else operations._like_before(f"{name}, command")
    proof = _ended_well if name == "push" else proof
    return replace(one, name=f"{name}, command", run=_commanded(arguments, result), proof=proof)


def _to(stage: Stage, name: str) -> str:
    return stage.at("destination", name)


COMMANDS: tuple[Operation, ...] = (
    _command("plan", lambda s, n: ["copy", "-b", s.bundle_at("source"), "--to-repo", _to(s, n), "--plan"], _manifests),
    _command("copy", lambda s, n: ["copy", "-b", s.bundle_at("source"), "--to-repo", _to(s, n)]),
    _command(
        "copy and verify",
        lambda s, n: ["copy", "-b", s.bundle_at("source"), "--to-repo", _to(s, n), "--verify", "head"],
    ),
    _command("push", lambda s, n: ["push", "-b", f"{_to(s, n)}:v1", "-f", operations._files(s)], _pushed),
    replace(
        _command("pull", lambda s, n: ["pull", "-b", s.bundle_at("source"), "-o", str(s.folder / n)], _pulled),
        ruins=lambda stage, name: operations._half_pulled(stage, name, "pull, command"),
    ),
    _command(
        "export",
        lambda s, n: ["copy", "-b", s.bundle_at("source"), "--to-tar", str(operations._archive(s, n)), "--resume"],
        _archived,
    ),
    _command("import", lambda s, n: ["copy", "--tar", str(operations._archive(s, "whole")), "--to-repo", _to(s, n)]),
    _command("mirror", lambda s, n: ["mirror", "run", "-f", _mirrors(s, n)]),
    _command("verify", lambda s, _: ["verify", "--all-tags", s.at("destination", "shop/whole"), "--json"], _amounts),
    _command(
        "prune",
        lambda s, n: ["prune", _to(s, n), "--keep-tag", "v1", "--keep-tag", "v2", "--approve", "--json"],
        _nothing_left,
    ),
    _command("tag list", lambda s, _: ["tag", "list", "-i", s.at("source", "shop/whole")], _output),
    _command("describe", lambda s, _: ["describe", "-b", s.bundle_at("source")], _output),
)


def _flown(flow: Callable[[Stage, str, RegistryOptions], Any]) -> Callable[[Stage, Session, str], Any]:
    """Runs a flow in this process, at whatever server is set."""

    def run(stage: Stage, session: Session, name: str) -> Any:
        del session
        settings: dict[str, Any] = {"anonymous": True, **(IN_A_HURRY if stage.in_a_hurry else {})}
        return flow(stage, name, RegistryOptions(**settings))

    return run


def _relocate(stage: Stage, options: RegistryOptions, source: str, kind: SourceKind, to: str) -> Any:
    from flows import relocate_sync

    del stage
    return relocate_sync(
        RelocateParameters(
            kind=kind,
            source=source,
            destination=to,
            how=CopyOptions(),
            source_registry=options,
            destination_registry=options,
            concurrency=4,
        )
    )


def _copy_flow(stage: Stage, name: str, options: RegistryOptions) -> Any:
    return _relocate(stage, options, stage.bundle_at("source"), SourceKind.BUNDLE, _to(stage, name))


def _export_flow(stage: Stage, name: str, options: RegistryOptions) -> Any:
    archive = operations._archive(stage, name)
    _relocate(stage, options, stage.bundle_at("source"), SourceKind.BUNDLE, str(archive))
    return content.digest_of(archive.read_bytes())


def _import_flow(stage: Stage, name: str, options: RegistryOptions) -> Any:
    archive = str(operations._archive(stage, "whole"))
    return _relocate(stage, options, archive, SourceKind.ARCHIVE, _to(stage, name))


def _mirror_flow(stage: Stage, name: str, options: RegistryOptions) -> Any:
    from flows import MirrorIncomplete, mirror_sync

    document = _mirrors_document(stage, name)
    hosts = (proxy.host for proxy in stage.proxies.values())
    config = MirrorsConfig.make({**document, "registries": {host: options.to_dict() for host in hosts}})
    try:
        return mirror_sync(MirrorParameters(config=config))
    except MirrorIncomplete as error:
        nothing = [f"source {one.source}: {one.nothing_taken}" for one in error.report.mirrors if one.nothing_taken]
        failed = [f"{one.names} {one.error}" for mirror in error.report.mirrors for one in mirror.failed]
        raise Reported("\n".join([*nothing, *failed])) from error


def _prune_flow(stage: Stage, name: str, options: RegistryOptions) -> Any:
    """The first run notes since when it isn't wanted, a later one deletes it."""
    from flows import prune_sync

    report = None
    for _ in range(3):
        report = prune_sync(
            PruneParameters(
                destination=_to(stage, name),
                keep=KeepOptions(tags=("v1", "v2")),
                grace=timedelta(microseconds=1),
                after_plan=AfterPlan.DELETE,
                registry=options,
                concurrency=4,
            )
        )
        left = [*report.failed, *report.refused, *report.skipped]
        if left:
            raise Reported("\n".join(f"destination {report.destination}: {one.subject}: {one.reason}" for one in left))
        if report.outcome == "deleted":
            break
    return report


def _flow(name: str, flow: Callable[[Stage, str, RegistryOptions], Any]) -> Operation:
    one = by_name(name)
    proof = one.proof if one.writes else operations._like_before(f"{name}, flow")
    # Prefect waits before it tries a task again.
    return replace(one, name=f"{name}, flow", run=_flown(flow), proof=proof, patience=4.0)


FLOWS: tuple[Operation, ...] = (
    _flow("copy", _copy_flow),
    _flow("export", _export_flow),
    _flow("import", _import_flow),
    _flow("mirror", _mirror_flow),
    _flow("prune", _prune_flow),
)
