"""Files as an image in an archive: a push for which no registry is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace

from oci.archive.export import ArchiveReport, write_archive
from oci.archive.planner import ArchiveOptions, plan_archive
from oci.bundle.push import Pushed, PushRequest, push
from oci.files.walk import Entry
from oci.reference import LAYOUT_PREFIX, ArchiveName, LayoutFolder
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session


def push_to_archive(
    session: Session,
    request: PushRequest,
    entries: Sequence[Entry],
    location: str,
    options: ArchiveOptions | None = None,
) -> tuple[Pushed, ArchiveReport]:
    """The image that `push` would make, in an archive that knows it by the name it was to have. What a bundle lists
    isn't in it, no more than a push sends it."""
    named = request.destination
    with tempfile.TemporaryDirectory(prefix="transship-") as folder:
        place = f"{LAYOUT_PREFIX}{folder}:{named.tag}"
        asked = replace(request, bundle=request.bundle and place, image=request.image and place)
        pushed = push(session.destination(LayoutFolder(folder)), asked, entries, cancel=session.cancel)
        copied = RelocationRequest(image=place, shallow=True, to=str(ArchiveName.of(location)))
        plan = make_plan(session, copied)
        there = replace(plan, manifests=tuple(replace(one, store=str(named.repository)) for one in plan.manifests))
        report = write_archive(session, plan_archive(session, copied, there, options))
    return replace(pushed, reference=named.at(there.manifests[-1].digest)), report
