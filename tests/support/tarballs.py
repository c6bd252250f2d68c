"""Archives without a registry: some blobs in memory, the plan of a tarball of them, and what its bytes are to be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from oci.archive.entry import IMGPKG
from oci.archive.open import ByteReader
from oci.digest import Digest, digest_of
from oci.export.assembly import OpenBlob, WriteReport, Writing
from oci.export.file_writer import ByteWriter
from oci.export.tar_plan import MemberContent, Part, TarPlan, cut, lay_out

MIB = 1 << 20
PART = 5 * MIB


@dataclass
class Tarball:
    """`reads` has what was read of the blobs: (digest, offset, bytes)."""

    blobs: dict[Digest, bytes]
    reads: list[tuple[Digest, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, sizes: Sequence[int]) -> Tarball:
        made = [random.Random(seed * 1000 + number).randbytes(size) for number, size in enumerate(sizes)]
        return cls({digest_of(data): data for data in made})

    @property
    def plan(self) -> TarPlan:
        blobs = [
            MemberContent(f"{digest}.tar.gz", len(self.blobs[digest]), digest=digest) for digest in sorted(self.blobs)
        ]
        return lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[]"), *blobs])

    @property
    def data(self) -> bytes:
        """All of it, put together in the plainest way."""
        pieces = self.plan.pieces(0, self.plan.size)
        return b"".join(self.blobs[piece.digest] if piece.digest else piece.data for piece in pieces)

    def places(self, digest: Digest) -> Sequence[OpenBlob]:
        def read(offset: int, length: int | None) -> Iterator[bytes]:
            data = self.blobs[digest]
            end = len(data) if length is None else min(len(data), offset + length)
            self.reads.append((digest, offset, end - offset))
            for start in range(offset, end, MIB):
                yield data[start : min(start + MIB, end)]

        return [read]

    @property
    def bytes_read(self) -> int:
        return sum(size for _, _, size in self.reads)

    def parts(self, base: TarPlan | None = None) -> tuple[Part, ...]:
        offsets = {member.content.name: member.offset for member in base.members} if base else {}
        return cut(self.plan, size=PART, base=offsets)

    def write(
        self,
        writer: ByteWriter,
        *,
        resume: bool = False,
        concurrency: int = 4,
        base: ByteReader | None = None,
        base_plan: TarPlan | None = None,
    ) -> WriteReport:
        parts = self.parts(base_plan)
        done = writer.begin(parts, self.plan.fingerprint, resume=resume)
        writing = Writing(self.plan, parts, writer, self.places, base=base, concurrency=concurrency)
        try:
            report = writing.run(done)
            writer.finish(parts)
        finally:
            writer.leave()
        return report
