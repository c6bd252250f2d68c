"""Every case of the corpus ends as it says, in its folder, within bounds of memory and time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oci.archive.inventory import verify_archive
from oci.bundle.lockfile import read_lock
from oci.errors import IntegrityError, TransshipError
from oci.files.unpack import unpack
from oci.library import Archive
from oci.manifest import parse_manifest
from oci.mirror.reader import read_config
from oci.reference import parse_any
from tests.fuzz.parsers import PARSERS
from tests.hostile import answers, archives, documents, layers, locks, manifests, mirrors, references
from tests.hostile.case import Case

SECONDS = 30.0
MEMORY = 200 << 20
"""Bytes over what the process had before."""

_numbers = itertools.count()
PIECE = 64 << 10


def unpack_in(folder: Path, data: bytes) -> None:
    inside = folder / f"{next(_numbers)}" / "below" / "here"
    inside.mkdir(parents=True)
    try:
        unpack([iter([data[at : at + PIECE] for at in range(0, len(data), PIECE)])], str(inside))
    finally:
        top = inside.parent.parent
        assert [*top.iterdir(), *inside.parent.iterdir()] == [inside.parent, inside]


def written(folder: Path, data: bytes) -> str:
    path = folder / f"{next(_numbers)}"
    path.write_bytes(data)
    return str(path)


def open_archive(folder: Path, data: bytes) -> None:
    """What a deep verification finds counts as a refusal."""
    with Archive(written(folder, data)) as archive, ThreadPoolExecutor(2) as workers:
        verdict = verify_archive(archive, workers, deep=True)
    if verdict.problems:
        raise IntegrityError(str(verdict.problems))


def peak() -> int:
    """Bytes that the process had at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def liar() -> Iterator[answers.Liar]:
    with answers.Liar() as server:
        yield server


KINDS: dict[str, tuple[Callable[[], Iterator[Case[Any]]], int]] = {
    "layers": (layers.cases, 100),
    "manifests": (manifests.cases, 75),
    "archives": (archives.cases, 60),
    "locks": (locks.cases, 55),
    "mirrors": (mirrors.cases, 65),
    "references": (references.cases, 50),
    "answers": (answers.cases, 30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_ends_as_it_says(kind: str, tmp_path: Path, liar: answers.Liar) -> None:
    use: dict[str, Callable[[Any], object]] = {
        "layers": lambda data: unpack_in(tmp_path, data),
        "manifests": lambda pair: parse_manifest(*pair),
        "archives": lambda data: open_archive(tmp_path, data),
        "locks": lambda data: read_lock(written(tmp_path, data)),
        "mirrors": lambda data: read_config(written(tmp_path, data), {}),
        "references": parse_any,
        "answers": lambda answer: answers.ask(liar, answer),
    }
    make, least = KINDS[kind]
    cases = list(make())
    assert len({case.name for case in cases}) == len(cases) >= least
    wrong = []
    for case in cases:
        given = case.make()
        forget_peak()
        before, started = peak(), time.monotonic()
        try:
            use[kind](given)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
            if type(error) is not case.expected:
                wrong.append(f"{case.name}: {type(error).__name__}: {error}")
        else:
            if case.expected is not None:
                wrong.append(f"{case.name}: accepted")
        took, memory = time.monotonic() - started, peak() - before
        if took > SECONDS or memory > MEMORY:
            wrong.append(f"{case.name}: {took:.1f} s, {memory >> 20} MiB")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_hostile_to_any_parser_is_refused_or_read(name: str) -> None:
    parser = PARSERS[name]
    errors: tuple[type[Exception], ...] = (TransshipError, *parser.own)
    wrong = []
    for (bent, make), honest in itertools.product(documents.BENT.items(), parser.honest):
        given = make(honest)
        forget_peak()
        before, started = peak(), time.monotonic()
        try:
            parser.parse(given)
        except errors:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            wrong.append(f"{bent}: {type(error).__name__}: {error}")
        took, memory = time.monotonic() - started, peak() - before
        if took > SECONDS or memory > MEMORY:
            wrong.append(f"{bent}: {took:.1f} s, {memory >> 20} MiB")
    assert wrong == []
