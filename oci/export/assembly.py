"""Writing an archive: parts side by side, each from wherever its bytes are, every blob proven before that has a name.

A part is put together in memory and stored whole, so that storing can be repeated without reading again; one that is
too big for that is read again instead. The part that has a blob's last byte is stored only after all of the blob was
hashed, in order, with the right result: a run that finds every part of a blob in place may trust it. What a killed run
left of a blob that isn't whole is read and hashed again.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import md5
from itertools import chain, repeat
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from oci.archive.open import ByteReader
from oci.digest import Chunk, Digest, Verifier
from oci.errors import Cancelled, CancelToken, IntegrityError, InvalidInput, StoreError, TransshipError
from oci.export.file_writer import ByteWriter
from oci.export.tar_plan import Part, Piece, StoredPart, TarPlan
from oci.meter import Meter, unheard
from oci.relocation.fanout import as_done, wait_all

T = TypeVar("T", bound=bytes | memoryview)

OpenBlob = Callable[[int, int | None], Iterator[Chunk]]
"""Reads one blob from an offset, for so many bytes or, with None, to its end and proven."""

Places = Callable[[Digest], Sequence[OpenBlob]]
"""Where a blob can be read, best first."""

BUFFERED = 40 << 20
"""Bytes of parts in memory at a time; a part that is bigger passes through piece by piece."""

_ROUNDS = 3
"""How often a part is put together when its bytes, or what the store made of them, aren't the promised ones."""


class WriteReport(Struct):
    """What writing took, in bytes: `sent` went through here, `copied` came out of an older archive without doing so,
    `kept` is what an earlier run had stored. Of these two, `unread` are in an object store and were not read again:
    that they are the right bytes is what the store and the older archive's metadata say. Reading the archive proves it
    (`archive verify --deep`, and every import)."""

    sent: int = 0
    copied: int = 0
    kept: int = 0
    unread: int = 0
    parts: int = 0

    @classmethod
    def total(cls, reports: Iterable[WriteReport]) -> WriteReport:
        return cls(*map(sum, zip(*map(astuple, reports), strict=True)))


class Chains(Struct):
    """Hashes blobs in order while their pieces arrive in any order: one hash for each blob that is cut. A piece waits
    until those before it are hashed: a caller begins pieces in order, so that it never waits for one that hasn't
    begun."""

    _verifiers: dict[Digest, Verifier] = msgspec.field(default_factory=dict)
    _hashed: dict[Digest, int] = msgspec.field(default_factory=dict)
    """Bytes of each blob up to the end of a piece. What the verifier has seen says less: it counts a chunk before that
    is hashed."""
    _turn: threading.Condition = msgspec.field(default_factory=threading.Condition)
    _broken: dict[Digest, TransshipError | Cancelled] = msgspec.field(default_factory=dict)
    _over: TransshipError | Cancelled | None = None

    def update(self, piece: Piece, chunks: Iterable[bytes | memoryview]) -> None:
        """Raises IntegrityError when the blob ends here and isn't what was promised, or the error given to
        `break_off`."""
        deque(self.passing(piece, chunks), maxlen=0)

    def passing(self, piece: Piece, chunks: Iterable[T]) -> Iterator[T]:
        """Does the same, and hands the bytes on. They are taken when the piece's turn has come."""
        digest = piece.digest
        with self._turn:
            verifier = self._verifiers.setdefault(digest, Verifier(digest, piece.blob_size))
            self._turn.wait_for(
                lambda: self._over or digest in self._broken or self._hashed.get(digest, 0) == piece.blob_offset
            )
            error = self._over or self._broken.get(digest)
            if error is not None:
                raise error
        for chunk in chunks:
            verifier.update(chunk)
            yield chunk
        end = piece.blob_offset + piece.length
        if verifier.bytes_read != end:
            raise IntegrityError(f"{digest}: got {verifier.bytes_read} bytes where {end} were to be")
        with self._turn:
            self._hashed[digest] = end
            self._turn.notify_all()
        if end == piece.blob_size:
            verifier.finish()

    def break_off(self, error: TransshipError | Cancelled, digests: Iterable[Digest] | None = None) -> None:
        """Ends the waiting for these blobs, or for all of them."""
        with self._turn:
            if digests is None:
                self._over = self._over or error
            else:
                self._broken.update(dict.fromkeys(digests, error))
            self._turn.notify_all()


@dataclass
class Writing:
    """One archive being written, or the parts of it that this process is to write."""

    plan: TarPlan
    parts: Sequence[Part]
    writer: ByteWriter
    places: Places
    base: ByteReader | None = None
    cancel: CancelToken = field(default_factory=CancelToken)
    meter: Meter = field(default_factory=Meter)
    concurrency: int = 8
    on_part: Callable[[Part], None] = unheard
    report: WriteReport = field(default_factory=WriteReport)
    _round_number: int = 0
    _unproven: set[Digest] = field(default_factory=set)
    """Blobs of which a piece is missing: all their pieces are hashed in this round, and no other blob's that is cut."""
    _reused: set[int] = field(default_factory=set)
    """Numbers of the parts of an earlier run that haven't been written again."""
    _announced: set[int] = field(default_factory=set)
    """Numbers of the parts that `on_part` was called with."""
    _chains: Chains = field(default_factory=Chains)
    _spare: list[bytearray] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stored_before: Mapping[int, StoredPart], numbers: Iterable[int] | None = None) -> WriteReport:
        """Writes the parts that aren't in `stored_before`. Where the writer can read those back, they are read once and
        hashed against the plan first; a part that isn't right is written again. Raises the first error that another
        round didn't mend; stored parts stay, for a run that resumes."""
        chosen = set(numbers) if numbers is not None else None
        mine = [part for part in self.parts if chosen is None or part.number in chosen]
        others = [part for part in self.parts if chosen is not None and part.number not in chosen]
        if self._cut_in(mine) & self._cut_in(others):
            raise InvalidInput("these parts share a blob with others: one process has to write them all")
        self.report.parts = len(mine)
        stored = {part.number: stored_before[part.number] for part in mine if part.number in stored_before}
        self._reused = set(stored)
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="piece") as readers:
            while (problem := self._round(mine, stored, readers)) is not None:
                self._round_number += 1
                if self._round_number == _ROUNDS:
                    raise problem
        self.report.kept = sum(part.size for part in mine if part.number in self._reused)
        if not self.writer.reads_back:
            self.report.unread = self.report.kept + self.report.copied
        return self.report

    def _round(
        self, parts: Sequence[Part], stored: dict[int, StoredPart], readers: ThreadPoolExecutor
    ) -> IntegrityError | None:
        """One pass over what is missing. Gives a problem when something has to be done again: a blob with a wrong byte
        takes all its parts with it, for no record says which of them has it."""
        prove_all = self.writer.reads_back and self._round_number == 0
        self._unproven = self._cut_in(part for part in parts if prove_all or part.number not in stored)
        todo = [
            part for part in parts if prove_all or part.number not in stored or self._blobs_cut(part) & self._unproven
        ]
        numbers = {part.number for part in todo}
        for part in parts:
            if part.number not in numbers:
                self._announce(part)
        self._chains = Chains()
        problem: IntegrityError | None = None
        failed, spoilt = set[int](), set[Digest]()
        for part, error in self._side_by_side(todo, stored, readers):
            problem = problem or error
            failed.add(part.number)
            spoilt |= self._blobs_cut(part)
        for part in parts:  # when all have ended: one that was hashed before may be written after the error
            if part.number in failed or self._blobs_cut(part) & spoilt:
                stored.pop(part.number, None)
                self._reused.discard(part.number)
        return problem

    def _side_by_side(
        self, todo: Sequence[Part], stored: dict[int, StoredPart], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[Part, IntegrityError]]:
        """Gives those with wrong bytes, which are a matter of their blobs alone; any other error is raised, and no part
        begins any more. Parts begin in order, which is what lets one wait for the hash of the one before it."""
        longest = max((part.size for part in todo if part.copy_from is None and part.size <= BUFFERED), default=1)
        width = max(1, min(self.concurrency, BUFFERED // longest))

        def begin(part: Part) -> Future[StoredPart]:
            return threads.submit(self._write, part, stored.get(part.number), readers)

        with ThreadPoolExecutor(width, thread_name_prefix="part") as threads:
            for part, future in as_done(todo, width, begin):
                try:
                    written = future.result()
                except IntegrityError as error:
                    yield part, error
                else:
                    self._announce(part)
                    stored[part.number] = written

    def _write(self, part: Part, stored: StoredPart | None, readers: ThreadPoolExecutor) -> StoredPart:
        """Writes a part. A part that fails wakes the parts that wait for it."""
        try:
            self.cancel.check()
            return self._written(part, stored, readers)
        except BaseException as error:
            of_this_part = self._blobs_cut(part) if isinstance(error, IntegrityError) else None
            self._chains.break_off(error if isinstance(error, TransshipError) else Cancelled(), of_this_part)
            raise

    def _written(self, part: Part, stored: StoredPart | None, readers: ThreadPoolExecutor) -> StoredPart:
        if stored is not None and self.writer.reads_back:
            whole = self._round_number == 0
            self._prove_stored(part, self.plan.pieces(part.start, part.end) if whole else self._unproven_pieces(part))
            return stored
        if part.copy_from is not None and self.base is not None and self._round_number == 0:
            if self.writer.copy(part, self.base):
                if self.writer.reads_back:
                    self._prove_stored(part, self.plan.pieces(part.start, part.end))
                with self._lock:
                    self.report.copied += part.size
                return StoredPart()
            if not self.writer.reads_back:
                # Other parts of its blobs may be copied, unseen: all are read and hashed in the next round.
                raise IntegrityError(f"part {part.number} can't be copied from {self.base.location}")
        if part.size > BUFFERED:
            proves = chain([True], repeat(False))
            new = self.writer.put_stream(part, lambda: self._passing(part, prove=next(proves)), stored)
        else:
            new = self._put(part, stored, readers)
        if not new:
            return stored or StoredPart()
        with self._lock:
            self._reused.discard(part.number)
            self.report.sent += part.size
        self.meter.sent(part.size)
        return StoredPart()

    def _put(self, part: Part, stored: StoredPart | None, readers: ThreadPoolExecutor) -> bool:
        """Returns False when the very bytes are stored already."""
        data = self._buffer(part.size)
        self._assemble(part, data, readers)
        view = memoryview(data)
        for piece in self._unproven_pieces(part):  # each when its turn has come
            at = piece.offset - part.start
            self._chains.update(piece, [view[at : at + piece.length]])
        new = stored is None or not stored.is_of(zlib.crc32(data), md5(data, usedforsecurity=False).hexdigest)
        if new:
            self.writer.put(part, data)
        self._spare.append(data)
        return new

    def _buffer(self, size: int) -> bytearray:
        """One that an earlier part has done with, if there is one: what is freed in so big pieces mostly stays with the
        process, and new ones would come on top of it."""
        try:
            data = self._spare.pop()
        except IndexError:
            return bytearray(size)
        del data[size:]
        data.extend(bytes(size - len(data)))
        return data

    def _passing(self, part: Part, *, prove: bool) -> Iterator[Chunk]:
        """Yields the bytes of a part that isn't held; a blob that is whole in it is proven as one that is cut."""
        unproven = {piece.offset for piece in self._unproven_pieces(part)} if prove else set()
        for piece in self.plan.pieces(part.start, part.end):
            if not piece.digest:
                yield piece.data
            elif prove and (piece.is_whole or piece.offset in unproven):
                yield from self._chains.passing(piece, self._read(piece))
            else:
                yield from self._read(piece)

    def _read(self, piece: Piece) -> Iterator[Chunk]:
        """From the first place that answers, then from the next where that one breaks off."""
        at = 0
        problem: TransshipError | None = None
        for open_blob in self._stores_of(piece):
            try:
                for chunk in open_blob(piece.blob_offset + at, piece.length - at):
                    self.cancel.check()
                    at += len(chunk)
                    yield chunk
            except StoreError as error:
                problem = problem or error
                continue
            if at != piece.length:
                raise IntegrityError(f"got {at} bytes instead of {piece.length}")
            return
        raise problem or InvalidInput(f"the plan names no place to read {piece.digest} from")

    def _stores_of(self, piece: Piece) -> Sequence[OpenBlob]:
        """Returns the stores of the piece's blob. A store that gave wrong bytes of a cut blob comes last in the next
        round."""
        places = self.places(piece.digest)
        turn = self._round_number % max(1, len(places))
        return (*places[turn:], *places[:turn])

    def _assemble(self, part: Part, data: bytearray, readers: ThreadPoolExecutor) -> None:
        view = memoryview(data)
        running = []
        for piece in self.plan.pieces(part.start, part.end):
            at = piece.offset - part.start
            if piece.digest:
                running.append(readers.submit(self._fill, view[at : at + piece.length], piece))
            else:
                view[at : at + piece.length] = piece.data
        try:
            wait_all(running)
        finally:
            view.release()

    def _fill(self, place: memoryview, piece: Piece) -> None:
        """From the first place that gives the right bytes; a blob that is whole in its part is proven as it is read."""
        problem: TransshipError | None = None
        with place:
            for open_blob in self._stores_of(piece):
                at = 0
                try:
                    for chunk in open_blob(piece.blob_offset, None if piece.is_whole else piece.length):
                        self.cancel.check()
                        place[at : at + len(chunk)] = chunk
                        at += len(chunk)
                except (IntegrityError, StoreError) as error:
                    problem = problem or error
                    continue
                if at == piece.length:
                    return
                problem = problem or IntegrityError(f"got {at} bytes instead of {piece.length}")
        raise problem or InvalidInput(f"the plan names no place to read {piece.digest} from")

    def _prove_stored(self, part: Part, pieces: Iterable[Piece]) -> None:
        """Compares what is stored already with the plan: hashes blobs, looks at every other byte."""
        for piece in pieces:
            stored = self.writer.stored(Part(part.number, piece.offset, piece.offset + piece.length))
            if piece.digest:
                self._chains.update(piece, stored)
            elif b"".join(stored) != piece.data:
                raise IntegrityError(f"{self.writer.location}: part {part.number} isn't what it should be")

    def _cut_pieces(self, part: Part) -> Iterator[Piece]:
        """Lists the blobs that this part has a piece of, and that have to be proven piece by piece. The older archive
        proves those of which a stretch is copied inside the store, unread."""
        vouched = frozenset() if self.writer.reads_back or self._round_number else self._copied
        for piece in self.plan.pieces(part.start, part.end):
            if piece.digest and not piece.is_whole and piece.digest not in vouched:
                yield piece

    def _unproven_pieces(self, part: Part) -> Iterator[Piece]:
        return (piece for piece in self._cut_pieces(part) if piece.digest in self._unproven)

    def _blobs_cut(self, part: Part) -> set[Digest]:
        return {piece.digest for piece in self._cut_pieces(part)}

    def _cut_in(self, parts: Iterable[Part]) -> set[Digest]:
        return {digest for part in parts for digest in self._blobs_cut(part)}

    @cached_property
    def _copied(self) -> frozenset[Digest]:
        copied = (part for part in self.parts if part.copy_from is not None)
        return frozenset(piece.digest for part in copied for piece in self.plan.pieces(part.start, part.end))

    def _announce(self, part: Part) -> None:
        """Calls `on_part` once for each part, however often the part is written."""
        if part.number not in self._announced:
            self._announced.add(part.number)
            self.on_part(part)
