"""`SHA256SUMS` beside an archive, as sha256sum writes and checks it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing

from oci.archive.parts import Part
from oci.archive.places import open_reader, open_writer
from oci.relocation.session import Session

SUFFIX = ".SHA256SUMS"


def write_sums(session: Session, locations: Iterable[str], name: str) -> tuple[str, ...]:
    """Reads every volume once more and writes `NAME.SHA256SUMS`; gives the sums in order of the volumes. `name` is what
    the archive was to be called, be it one volume or several."""
    locations = tuple(locations)
    sums = tuple(session.workers.map(lambda location: _sum(session, location), locations))
    lines = (f"{one}  {location.rpartition('/')[2]}\n" for one, location in zip(sums, locations, strict=True))
    text = "".join(lines).encode()
    whole = Part(1, 0, len(text))
    writer = open_writer(f"{name}{SUFFIX}", session.object_store(name))
    try:
        writer.begin([whole], hashlib.sha256(text).hexdigest(), resume=False)
        writer.put(whole, bytearray(text))
        writer.finish([whole])
    finally:
        writer.leave()
    return sums


def _sum(session: Session, location: str) -> str:
    reader = open_reader(location, session.object_store(location), side="destination", cancel=session.cancel)
    seal = hashlib.sha256()
    with closing(reader):
        for chunk in reader.read(0, reader.size):
            seal.update(chunk)
    return seal.hexdigest()
