"""What one flow run of a relocation holds beside its transfer: the order, and what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from oci.errors import InvalidInput, TransshipError
from oci.relocation.publish import Published, check_complete
from oci.relocation.request import RelocationRequest
from oci.relocation.session import DEFAULT_CONCURRENCY
from oci.relocation.verify import Verification
from tasks.resolution import Resolution
from tasks.side import Side
from tasks.transfer import Transfer, current_transfer, opened_transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A relocation as asked for, in values that can be sent anywhere: no secret, no connection."""

    request: RelocationRequest
    source: Side = field(default_factory=Side)
    destination: Side = field(default_factory=Side)
    concurrency: int = DEFAULT_CONCURRENCY


class Relocation(Transfer):
    """One order being carried out."""

    def __init__(self, order: Order) -> None:
        super().__init__(source=order.source, destination=order.destination, concurrency=order.concurrency)
        self.order = order
        self.request = order.request
        """With the source pinned to a digest once it is resolved."""
        self.source: Resolution | None = None
        self.published: Published | None = None
        self.verification: Verification | None = None
        self.error: TransshipError | None = None
        """What ended it early."""

    def pin(self, source: Resolution) -> None:
        """Makes the relocation work on the resolved content and nothing else."""
        self.source = source
        if source.digest:
            asked = self.order.request
            tags = asked.tags or ((source.tag,) if source.tag else ())
            if asked.bundle:
                self.request = asked.with_(bundle=source.pinned, tags=tags)
            else:
                self.request = asked.with_(image=source.pinned, tags=tags)

    def check_complete(self) -> None:
        """Raises Incomplete, with what failed, unless every image of the plan is in place."""
        check_complete(self.planned, self.outcomes.values())

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Keeps an error of the block for the report that follows it."""
        try:
            yield
        except TransshipError as error:
            self.error = error


@asynccontextmanager
async def opened(order: Order) -> AsyncIterator[Relocation]:
    """The relocation that the tasks called inside work on."""
    async with opened_transfer(Relocation(order)) as relocation:
        yield relocation


def current() -> Relocation:
    """The relocation of this flow run. Raises InvalidInput outside `opened`."""
    transfer = current_transfer()
    if not isinstance(transfer, Relocation):
        raise InvalidInput("what is open here is a part of a relocation", hint="the whole of it has this step")
    return transfer
