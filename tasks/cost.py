"""What a flow run at one side has cost, as a value and as rows of a page."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from oci.meter import Receipt
from oci.units import show_size


class Cost(BaseModel):
    """Sizes in bytes, times in seconds."""

    bytes_read: int = 0
    bytes_written: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0
    identities: dict[str, str] = {}
    """Who we were, in words, by side and registry."""

    @classmethod
    def of(cls, receipt: Receipt) -> Cost:
        return cls(
            bytes_read=receipt.bytes_read,
            bytes_written=receipt.bytes_written,
            requests=receipt.total_requests,
            retries=receipt.retries,
            seconds=round(receipt.seconds, 3),
            identities=dict(receipt.identities),
        )

    def rows(self) -> Iterator[tuple[str, str]]:
        if self.bytes_written:
            yield "Sent", show_size(self.bytes_written)
        if self.bytes_read:
            yield "Read", show_size(self.bytes_read)
        yield "Requests", f"{self.requests}, {self.retries} of them again" if self.retries else str(self.requests)
        yield "Time", f"{self.seconds:.1f} s"
        for where, identity in sorted(self.identities.items()):
            yield "Login", f"{identity}, {where.rpartition(' ')[2]}"
