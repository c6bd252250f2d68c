"""Where an archive is written: a small Protocol for writing in parts, and a file on disk."""

from __future__ import annotations

import bisect
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from oci.archive.open import READ_SIZE, ByteReader, FileReader, in_object_store
from oci.archive.s3_options import S3Settings
from oci.errors import IntegrityError, NotFound, Refused
from oci.export.parts import SMALLEST, Part
from oci.meter import Meter
from oci.output import os_errors

_COPY_SIZE = 64 << 20


ReadPart = Callable[[], Iterator[bytes]]
"""Gives all the bytes of a part, anew every time. Those it gives first are proven as they pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """What a writer knows of a part that is in place: `crc32` where it keeps that, `md5` in hexadecimal likewise."""

    crc32: int | None = None
    md5: str = ""

    def is_of(self, crc32: int, md5: Callable[[], str]) -> bool:
        """Whether bytes with these checksums are the ones that are in place."""
        return self.crc32 == crc32 if self.crc32 is not None else bool(self.md5) and self.md5 == md5()


class ByteWriter(Protocol):
    """An archive in the making: nobody sees it before `finish`. Safe from any thread once it has begun."""

    @property
    def location(self) -> str: ...

    @property
    def smallest_part(self) -> int:
        """Bytes that every part but the last must have."""

    @property
    def reads_back(self) -> bool:
        """Whether `stored` gives what was written, so that it can be proven once more. A store that doesn't, copies
        parts of an older archive unseen."""

    def begin(self, parts: Sequence[Part], fingerprint: str, *, resume: bool) -> Mapping[int, StoredPart]:
        """The parts that an earlier run of the very same plan has left, when `resume` asks for them."""

    def is_begun(self, parts: Sequence[Part], fingerprint: str) -> bool:
        """Whether an earlier run has left something that only counts in this very cut."""

    @property
    def ticket(self) -> str:
        """With it another process writes parts of what this one has begun."""

    def join(self, ticket: str, parts: Sequence[Part]) -> Mapping[int, StoredPart]:
        """Takes part in what another process has begun; gives the parts that are in place. Raises NotFound when that
        was completed or given up."""

    def put(self, part: Part, data: bytearray) -> None:
        """Writes a part, over an earlier try."""

    def put_stream(self, part: Part, read: ReadPart, known: StoredPart | None) -> bool:
        """The same for a part that is too big to be held; False when what is `known` of it proves that it is in place.
        All of it is read once before anybody may take it for written, and again as often as it takes."""

    def copy(self, part: Part, base: ByteReader) -> bool:
        """Copies a part from an older archive without its bytes passing through here; False where that can't be."""

    def stored(self, part: Part) -> Iterator[bytes]:
        """What was written, read again."""

    def finish(self, parts: Sequence[Part]) -> None:
        """Gives the archive its name, now that all parts are in place."""

    def leave(self) -> None:
        """Lets go of it unfinished, so that a later run can go on."""


def smallest_part(location: str) -> int:
    """Bytes that every part but the last must have at a location."""
    return SMALLEST if in_object_store(location) else 1


def open_writer(location: str, s3: S3Settings, *, side: str = "destination", meter: Meter | None = None) -> ByteWriter:
    """Returns what writes an archive there. S3 takes a while to import, and is imported for an object only."""
    if not in_object_store(location):
        return FileWriter(location, side=side)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.export.s3_writer import S3Writer  # noqa: PLC0415

    return S3Writer(location, S3(s3, side=side, meter=meter))


class FileWriter:
    """A tarball on disk: `NAME.partial` until it is complete, and beside it `NAME.partial.journal`, which lists the
    stretches that are in place, each with a checksum: cut into other parts, they still count. Whatever is at NAME stays
    until the new one takes its place.

    Whoever writes holds a shared lock; beginning and finishing need it alone.
    """

    smallest_part = 1
    reads_back = True

    def __init__(self, path: str, *, side: str = "destination") -> None:
        self.location = path
        self.ticket = ""
        self._side = side
        self._path = os.path.realpath(path)
        self._partial = f"{self._path}.partial"
        self._journal = f"{self._path}.partial.journal"
        self._file = -1
        self._log = -1

    def begin(self, parts: Sequence[Part], fingerprint: str, *, resume: bool) -> Mapping[int, StoredPart]:
        size = parts[-1].end
        self.ticket = fingerprint
        with self._mapped("opening"):
            if os.path.isdir(self._path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if os.path.exists(self.location) and not os.path.isfile(self.location):
                raise Refused(
                    "this is no regular file, and an archive is written in parts, out of order",
                    side=self._side,
                    store=self.location,
                    operation="opening",
                    hint="write to a file, or straight to s3://BUCKET/KEY",
                )
            self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._lock(fcntl.LOCK_EX)
            self._log = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            _end_line(self._log)
            done = self._intact(parts) if resume else {}
            if not done:
                os.ftruncate(self._file, 0)
                os.ftruncate(self._log, 0)
                os.write(self._log, _line(self.ticket))
            self._check_room(size)
            os.ftruncate(self._file, size)
            self._lock(fcntl.LOCK_SH)
        return done

    def is_begun(self, parts: Sequence[Part], fingerprint: str) -> bool:
        del parts, fingerprint
        return False  # the journal lists stretches, which count in any cut

    def join(self, ticket: str, parts: Sequence[Part]) -> Mapping[int, StoredPart]:
        self.ticket = ticket
        with self._mapped("joining the unfinished archive"):
            self._file = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
            self._lock(fcntl.LOCK_SH)
            self._log = os.open(self._journal, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            if os.fstat(self._file).st_size != parts[-1].end or _journal(self._log, ticket) is None:
                raise NotFound(
                    "the unfinished archive is another one by now",
                    side=self._side,
                    store=self.location,
                    operation="joining the unfinished archive",
                    hint="write the archive again from the beginning",
                )
            _end_line(self._log)
            return self._intact(parts)

    def put(self, part: Part, data: bytearray) -> None:
        with self._mapped("writing"):
            _write_at(self._file, data, part.start)
            self._note(part, zlib.crc32(data))

    def put_stream(self, part: Part, read: ReadPart, known: StoredPart | None) -> bool:  # noqa: ARG002 - asked of stores that can't be read back
        at, crc = part.start, 0
        for chunk in read():
            with self._mapped("writing"):
                _write_at(self._file, chunk, at)
            at, crc = at + len(chunk), zlib.crc32(chunk, crc)
        with self._mapped("writing"):
            self._note(part, crc)
        return True

    def copy(self, part: Part, base: ByteReader) -> bool:
        """By copy_file_range, which shares the blocks where the file system can do that."""
        if not isinstance(base, FileReader) or part.copy_from is None:
            return False
        at, left = 0, part.size
        with self._mapped("copying from the older archive"):
            while left:
                try:
                    done = os.copy_file_range(
                        base.fileno(), self._file, min(left, _COPY_SIZE), part.copy_from + at, part.start + at
                    )
                except OSError:
                    done = 0
                if not done:  # a file system that can't, or an archive that ends too early
                    return False
                at, left = at + done, left - done
            self._note(part, _crc(self.stored(part)))
        return True

    def stored(self, part: Part) -> Iterator[bytes]:
        offset = part.start
        while offset < part.end:
            with self._mapped("reading again"):
                chunk = os.pread(self._file, min(READ_SIZE, part.end - offset), offset)
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    def finish(self, parts: Sequence[Part]) -> None:
        with self._mapped("finishing"):
            self._lock(fcntl.LOCK_EX)
            covered = _joined(_journal(self._log, self.ticket) or {})
            missing = [part.number for part in parts if not _covers(covered, part)]
            if missing:
                raise IntegrityError(f"{self.location}: part {missing[0]} isn't in place")
            os.fsync(self._file)
            os.replace(self._partial, self._path)
            with suppress(FileNotFoundError):
                os.unlink(self._journal)
            folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.leave()

    def leave(self) -> None:
        handles, self._file, self._log = (self._file, self._log), -1, -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)

    def _lock(self, kind: int) -> None:
        """Never waits. Whoever opened a file that was renamed meanwhile has the wrong one."""
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            if os.stat(self._partial).st_ino == os.fstat(self._file).st_ino:
                return
        except (BlockingIOError, FileNotFoundError):
            pass
        self.leave()
        raise Refused(
            "another run is writing this archive",
            side=self._side,
            store=self.location,
            operation="opening",
            hint="wait for it to end, or write to another file",
        )

    def _check_room(self, size: int) -> None:
        space = os.statvfs(self._file)
        free, held = space.f_bavail * space.f_frsize, os.fstat(self._file).st_blocks * 512
        if size - held > free:
            for begun in (self._partial, self._journal) if not held else ():
                os.unlink(begun)
            raise Refused(
                f"the archive has {size} bytes, and the disk has room for {free + held}",
                side=self._side,
                store=self.location,
                operation="making room",
                hint="make room, write to another disk, or straight to s3://BUCKET/KEY, which needs no disk at all",
            )

    def _intact(self, parts: Sequence[Part]) -> dict[int, StoredPart]:
        """What the journal lists and the file has. Only what was written before the machine started last is read again:
        a power failure may keep the one and lose the other, the end of a process doesn't."""
        listed = _journal(self._log, self.ticket) or {}
        sound = [
            (start, end)
            for (start, end), (crc, boot) in listed.items()
            if boot == _boot() or _crc(self.stored(Part(0, start, end))) == crc
        ]
        covered = _joined(sound)
        return {part.number: StoredPart() for part in parts if _covers(covered, part)}

    def _note(self, part: Part, crc: int) -> None:
        os.write(self._log, _line(json.dumps([part.start, part.end, crc, _boot()])))

    def _mapped(self, operation: str) -> AbstractContextManager[None]:
        return os_errors(side=self._side, store=self.location, operation=operation)


def _line(text: str) -> bytes:
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _end_line(log: int) -> None:
    """After a line that was cut off, the next one begins a new one."""
    size = os.fstat(log).st_size
    if size and os.pread(log, 1, size - 1) != b"\n":
        os.write(log, b"\n")


def _journal(log: int, first: str) -> dict[tuple[int, int], tuple[int, str]] | None:
    """Stretches with their checksums, and when the machine had started; a line that was cut off counts nothing. None
    for the journal of another archive."""
    size = os.fstat(log).st_size
    lines = [line.decode(errors="replace") for line in os.pread(log, size, 0).split(b"\n")[:-1]]
    if not lines or lines[0].encode() + b"\n" != _line(first):
        return None
    sound = (line[9:] for line in lines[1:] if line.encode() + b"\n" == _line(line[9:]))
    return {(int(start), int(end)): (int(crc), str(boot)) for start, end, crc, boot in map(json.loads, sound)}


def _joined(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches that touch as one, in order."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _covers(joined: Sequence[tuple[int, int]], part: Part) -> bool:
    at = bisect.bisect_right(joined, part.start, key=lambda stretch: stretch[0]) - 1
    return at >= 0 and part.end <= joined[at][1]


@cache
def _boot() -> str:
    """Tells one start of this machine from another."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _crc(chunks: Iterator[bytes]) -> int:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc


def _write_at(file: int, data: bytes | bytearray, offset: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
