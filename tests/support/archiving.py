"""Short ways to make and import archives in tests: anonymous, against loopback registries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oci.archive.options import ExportOptions
from oci.export.export import ArchiveReport, write_archive
from oci.export.plan import ArchivePlan
from oci.export.planner import plan_archive
from oci.reference import ArchiveName
from oci.relocation.driver import Relocation, RelocationResult
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from tests.support.relocating import anonymous


def archived(
    path: Path,
    *,
    options: ExportOptions | None = None,
    resume: bool = False,
    concurrency: int = 4,
    settings: Mapping[str, Any] | None = None,
    **request: Any,
) -> ArchiveReport:
    """One whole export in a session of its own."""
    access = anonymous(**(settings or {}))
    with Session(source=access, destination=access, concurrency=concurrency) as session:
        return write_archive(session, planned(session, path, options=options, **request), resume=resume)


def planned(session: Session, path: Path, *, options: ExportOptions | None = None, **request: Any) -> ArchivePlan:
    asked = RelocationRequest(to=str(ArchiveName.of(str(path))), **request)
    return plan_archive(session, asked, make_plan(session, asked), options)


def imported(to: str, *paths: Path, **request: Any) -> RelocationResult:
    access = anonymous()
    with Session(source=access, destination=access, concurrency=4) as session:
        return Relocation(session, RelocationRequest(archive=tuple(map(str, paths)), to=to, **request)).run()
