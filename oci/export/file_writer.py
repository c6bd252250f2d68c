"""Where an archive is written, in parts: a file on disk; `s3_writer` has the same methods for an object in S3."""

from __future__ import annotations

import bisect
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, TypeAlias

from oci.archive.open import ByteReader, FileReader
from oci.archive.options import S3Options
from oci.descriptor import parse_json
from oci.digest import READ_SIZE, Chunk
from oci.errors import CancelToken, IntegrityError, NotFound, Refused
from oci.export.tar_plan import Part, ReadPart, StoredPart
from oci.meter import Meter
from oci.output import BY_UMASK, check_output, open_own, os_errors, sync_folder
from oci.reference import in_object_store

if TYPE_CHECKING:
    from oci.export.s3_writer import S3Writer

ByteWriter: TypeAlias = "FileWriter | S3Writer"
"""An archive in the making: it gets its name in `finish`. Safe from any thread once it has begun."""

_SIDE = "destination"
_COPY_SIZE = 64 << 20
_JOURNAL_LIMIT = 64 << 20
_NOT_OURS = frozenset({errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM})
"""Of a link, a folder and the file of another user in the place of an unfinished archive."""


def open_writer(
    location: str, s3: S3Options, *, meter: Meter | None = None, cancel: CancelToken | None = None
) -> ByteWriter:
    """Returns what writes an archive there. S3 takes a while to import, and is imported for an object only."""
    if not in_object_store(location):
        return FileWriter(location)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.export.s3_writer import S3Writer  # noqa: PLC0415

    return S3Writer(location, S3(s3, side="destination", meter=meter, cancel=cancel))


class FileWriter:
    """A tarball on disk: `NAME.partial` until it is complete, and beside it `NAME.partial.journal`, which lists the
    stretches that are in place, each with a checksum: cut into other parts, they still count. Whatever is at NAME stays
    until the new archive takes its place.

    A writer holds a shared lock; beginning and finishing need it alone. The names of both files can be foreseen, so
    each is opened without following a link, and must be a regular file of this user under no other name.
    """

    reads_back = True
    """Whether `stored` gives what was written, so that it can be proven once more. A store that doesn't, copies parts
    of an older archive unseen."""

    def __init__(self, path: str) -> None:
        self.location = path
        self.ticket = ""
        """With it another process writes parts of the same file."""
        self._partial = f"{path}.partial"
        self._journal_path = f"{path}.partial.journal"
        self._file = -1
        self._journal = -1

    def begin(self, parts: Sequence[Part], fingerprint: str, *, resume: bool) -> Mapping[int, StoredPart]:
        """Opens both files, and gives the parts that an earlier run of the very same plan has left. With `resume`,
        every stretch that the journal of that plan lists is read and compared with its checksum; a run that resumes
        hashes the blobs in them as well."""
        size = parts[-1].end
        self.ticket = fingerprint
        with self._mapped("opening"):
            check_output(self.location)
            if os.path.exists(self.location) and not os.path.isfile(self.location):
                raise self._refused(
                    "this is no regular file, and an archive is written in parts, out of order",
                    hint="write to a file, or straight to s3://BUCKET/KEY",
                )
            self._file = self._open(self._partial, os.O_CREAT)
            self._lock(fcntl.LOCK_EX)
            self._journal = self._open(self._journal_path, os.O_CREAT | os.O_APPEND)
            listed = (self._read_journal() or {}) if resume else {}
            intact = {
                (start, end): crc
                for (start, end), crc in listed.items()
                if end <= size and _crc(self.stored(Part(0, start, end))) == crc
            }
            if not intact:
                os.ftruncate(self._file, 0)
            os.ftruncate(self._journal, 0)
            lines = [_line(self.ticket), *(_line(json.dumps([*stretch, crc])) for stretch, crc in intact.items())]
            os.write(self._journal, b"".join(lines))
            self._check_room(size)
            os.ftruncate(self._file, size)
            self._lock(fcntl.LOCK_SH)
        return _covered(parts, intact)

    def is_begun(self, parts: Sequence[Part], fingerprint: str) -> bool:
        """Says whether an earlier run has left something that only counts in this very cut. The journal lists
        stretches, which count in any."""
        del parts, fingerprint
        return False

    def join(self, ticket: str, parts: Sequence[Part]) -> Mapping[int, StoredPart]:
        """Takes part in what another process has begun; gives the parts that are in place. Raises NotFound when that
        was completed or given up."""
        self.ticket = ticket
        with self._mapped("joining the unfinished archive"):
            self._file = self._open(self._partial)
            self._lock(fcntl.LOCK_SH)
            self._journal = self._open(self._journal_path, os.O_APPEND)
            listed = self._read_journal()
            if os.fstat(self._file).st_size != parts[-1].end or listed is None:
                raise NotFound(
                    "the unfinished archive is another one by now",
                    side=_SIDE,
                    store=self.location,
                    operation="joining the unfinished archive",
                    hint="write the archive again from the beginning",
                )
            os.write(self._journal, b"\n")  # a killed run may have cut off its last line
            return _covered(parts, listed)

    def put(self, part: Part, data: bytearray) -> None:
        with self._mapped("writing"):
            _write_at(self._file, data, part.start)
            self._note(part, zlib.crc32(data))

    def put_stream(self, part: Part, read: ReadPart, stored: StoredPart | None) -> bool:
        """Writes a part that is too big to be held; False when `stored` proves that it is in place. All of it is read
        once before it counts as written, and again as often as it takes."""
        del stored  # only a store that can't be read back needs it
        at, crc = part.start, 0
        for chunk in read():
            with self._mapped("writing"):
                _write_at(self._file, chunk, at)
            at, crc = at + len(chunk), zlib.crc32(chunk, crc)
        with self._mapped("writing"):
            self._note(part, crc)
        return True

    def copy(self, part: Part, base: ByteReader) -> bool:
        """Copies a part from an older archive without its bytes passing through here; False where that can't be. It is
        copied by copy_file_range, which shares the blocks where the file system can do that."""
        if not isinstance(base, FileReader) or part.copy_from is None:
            return False
        at, remaining = 0, part.size
        with self._mapped("copying from the older archive"):
            while remaining:
                try:
                    copied = os.copy_file_range(
                        base.fileno(), self._file, min(remaining, _COPY_SIZE), part.copy_from + at, part.start + at
                    )
                except OSError:
                    copied = 0
                if not copied:  # a file system that can't, or an archive that ends too early
                    return False
                at, remaining = at + copied, remaining - copied
            self._note(part, _crc(self.stored(part)))
        return True

    def stored(self, part: Part) -> Iterator[bytes]:
        """Yields what was written, read again."""
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
            in_place = _covered(parts, self._read_journal() or {})
            missing = [part.number for part in parts if part.number not in in_place]
            if missing:
                raise IntegrityError(f"{self.location}: part {missing[0]} isn't in place")
            check_output(self.location)
            os.fsync(self._file)
            os.replace(self._partial, self.location)
            with suppress(FileNotFoundError):
                os.unlink(self._journal_path)
            sync_folder(os.path.dirname(self.location))
        self.leave()

    def leave(self) -> None:
        """Lets go of it unfinished, so that a later run can go on."""
        handles, self._file, self._journal = (self._file, self._journal), -1, -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)

    def _open(self, path: str, more: int = 0) -> int:
        """Raises Refused for what another user, or another name, could have put there."""
        try:
            return open_own(path, os.O_RDWR | more, BY_UMASK)
        except OSError as error:
            if error.errno not in _NOT_OURS or not os.path.lexists(path):
                raise
        raise self._refused(
            f"{path} is a link, or no regular file of this user alone", hint="remove it, or write to another folder"
        )

    def _lock(self, kind: int) -> None:
        """Never waits. A process that opened a file which was renamed meanwhile has the wrong one."""
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            if os.lstat(self._partial).st_ino == os.fstat(self._file).st_ino:
                return
        except (BlockingIOError, FileNotFoundError):
            pass
        self.leave()
        raise self._refused("another run is writing this archive", hint="wait for it to end, or write to another file")

    def _check_room(self, size: int) -> None:
        space = os.statvfs(self._file)
        free, used = space.f_bavail * space.f_frsize, os.fstat(self._file).st_blocks * 512
        if size - used > free:
            for begun in (self._partial, self._journal_path) if not used else ():
                os.unlink(begun)
            raise Refused(
                f"the archive has {size} bytes, and the disk has room for {free + used}",
                side=_SIDE,
                store=self.location,
                operation="making room",
                hint="make room, write to another disk, or straight to s3://BUCKET/KEY, which needs no disk at all",
            )

    def _note(self, part: Part, crc: int) -> None:
        os.write(self._journal, _line(json.dumps([part.start, part.end, crc])))

    def _read_journal(self) -> dict[tuple[int, int], int] | None:
        """Stretches with their checksums. A line that was cut off or damaged counts for nothing; None for the journal
        of another plan."""
        text = os.pread(self._journal, min(os.fstat(self._journal).st_size, _JOURNAL_LIMIT), 0)
        lines = [line for line in text.split(b"\n") if line]
        if not lines or lines[0] + b"\n" != _line(self.ticket):
            return None
        parts = {}
        for line in lines[1:]:
            with suppress(ValueError, TypeError):
                start, end, crc = parse_json(line[9:])
                if line + b"\n" == _line(json.dumps([start, end, crc])) and 0 <= start < end:
                    parts[(start, end)] = crc
        return parts

    def _refused(self, message: str, *, hint: str) -> Refused:
        return Refused(message, side=_SIDE, store=self.location, operation="opening", hint=hint)

    def _mapped(self, operation: str) -> AbstractContextManager[None]:
        return os_errors(side=_SIDE, store=self.location, operation=operation)


def _covered(parts: Sequence[Part], stretches: Iterable[tuple[int, int]]) -> dict[int, StoredPart]:
    """Returns the parts that the stretches cover, stretches that touch or overlap taken together."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    covered = {}
    for part in parts:
        at = bisect.bisect_right(joined, part.start, key=lambda stretch: stretch[0]) - 1
        if at >= 0 and part.end <= joined[at][1]:
            covered[part.number] = StoredPart()
    return covered


def _line(text: str) -> bytes:
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _crc(chunks: Iterator[bytes]) -> int:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc


def _write_at(file: int, data: Chunk | bytearray, offset: int) -> None:
    unwritten = memoryview(data)
    while unwritten:
        written = os.pwrite(file, unwritten, offset)
        unwritten, offset = unwritten[written:], offset + written
