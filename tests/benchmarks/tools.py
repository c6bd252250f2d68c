"""How each tool is told to copy a workload: from tags or digests in one registry to another."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from tests.benchmarks.measure import run
from tests.benchmarks.workloads import Pushed

Commands = Sequence[Sequence[str]]
PROGRAM = str(Path(sys.executable).with_name("transship"))
IMAGES_LOCK = {"apiVersion": "imgpkg.carvel.dev/v1alpha1", "kind": "ImagesLock"}


@dataclass(frozen=True, slots=True)
class Tool:
    """`commands(pushed, destination, folder)` gives what to run; `folder` is its own place for input files.
    `destination` is a repository for tools that copy into one, and the prefix of repositories for the others."""

    name: str
    commands: Callable[[Pushed, str, Path], Commands]


def images_lock(pushed: Pushed, folder: Path) -> str:
    path = folder / "images.yml"
    images = [{"image": f"{pushed.host}/{repository}@{digest}"} for repository, digest in pushed.images]
    path.write_text(yaml.safe_dump({**IMAGES_LOCK, "images": images}))
    return str(path)


def _transship(pushed: Pushed, destination: str, folder: Path, program: str = PROGRAM) -> Commands:
    lock = images_lock(pushed, folder)
    return [[program, "copy", "--lock", lock, "--to-repo", destination]]


def _imgpkg(pushed: Pushed, destination: str, folder: Path) -> Commands:
    return [["imgpkg", "copy", "--lock", images_lock(pushed, folder), "--to-repo", destination]]


def _skopeo(pushed: Pushed, destination: str, folder: Path) -> Commands:
    """One process for all images: `sync` from a list; a process per image would be several times slower."""
    path = folder / "sync.yml"
    images = {repository: ["v1"] for repository, _ in pushed.images}
    path.write_text(yaml.safe_dump({pushed.host: {"tls-verify": False, "images": images}}))
    flags = ["--insecure-policy", "sync", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false", "--all"]
    return [["skopeo", *flags, str(path), destination]]


def _each(*words: str) -> Callable[[Pushed, str, Path], Commands]:
    def commands(pushed: Pushed, destination: str, folder: Path) -> Commands:
        del folder
        return [
            [*words, f"{pushed.host}/{repository}@{digest}", f"{destination}/{repository}:v1"]
            for repository, digest in pushed.images
        ]

    return commands


_PEERS = (
    Tool("skopeo", _skopeo),
    Tool("imgpkg", _imgpkg),
    Tool("crane", _each("crane", "copy", "--insecure")),
    Tool("regctl", _each("regctl", "image", "copy")),
)
OURS = Tool("transship", _transship)


def available(against: Sequence[str] = ()) -> list[Tool]:
    """`against` are other versions of transship, as NAME=PROGRAM, measured in the same interleaved run."""
    others = [Tool(name, partial(_transship, program=program)) for name, _, program in map(_parted, against)]
    return [OURS, *others, *(tool for tool in _PEERS if shutil.which(tool.name))]


def warm(tools: Sequence[Tool], pushed: Pushed, folder: Path) -> None:
    """Starts each transship once, so that none is measured while Python compiles it."""
    for tool in tools:
        program, verb, *_ = tool.commands(pushed, "", folder)[0]
        if verb == "copy":
            run([[program, verb, "--help"]])


def _parted(text: str) -> tuple[str, str, str]:
    return text.partition("=")


@dataclass(frozen=True, slots=True)
class ArchiveTool:
    """How a tool writes an image into a file, and how it brings it from there to a repository."""

    name: str
    export: Commands
    arrive: Callable[[str], Commands]


def archive_tools(pushed: Pushed, folder: Path) -> list[ArchiveTool]:
    """`pushed` is a single image: what skopeo writes holds no more."""
    lock, file = images_lock(pushed, folder), str(folder / "image.tar")
    carvel = ("copy", "--lock", lock, "--to-tar", file)
    skopeo = ("skopeo", "--insecure-policy", "copy")
    repository, _ = pushed.images[0]
    origin, archive = f"docker://{pushed.host}/{repository}:v1", f"oci-archive:{file}:v1"

    def by(program: str) -> ArchiveTool:
        return ArchiveTool(
            Path(program).name,
            [[program, *carvel]],
            lambda to: [[program, "copy", "--tar", file, "--to-repo", to]],
        )

    tools = [by(PROGRAM), by("imgpkg")]
    tools.append(
        ArchiveTool(
            "skopeo",
            [[*skopeo, "--src-tls-verify=false", origin, archive]],
            lambda to: [[*skopeo, "--dest-tls-verify=false", archive, f"docker://{to}:v1"]],
        )
    )
    return [tool for tool in tools if shutil.which(tool.export[0][0])]
