"""What one flow run holds in its process of the mirror that it works on: the session, what was compared, and how it
went so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from oci.archive.s3_options import S3Options
from oci.errors import InvalidInput, TransshipError
from oci.metrics import RunMetrics
from oci.mirror.comparison import Comparison
from oci.mirror.config import Bucket, Mirror, MirrorsConfig
from oci.mirror.execute import ItemOutcome, failed_by, stopped_before
from oci.mirror.run import Shared, opened
from oci.mirror.work import WorkItem, WorkKey
from oci.relocation.session import Access, Session
from oci.relocation.transfer import DONE
from oci.units import percent
from tasks.access import Side
from tasks.blocks import load_s3
from tasks.run import Run


class MirrorRun(Run):
    """One mirror. Used from one event loop; the work itself runs in threads."""

    def __init__(
        self, config: MirrorsConfig, mirror: Mirror, shared: Shared, told: list[RunMetrics] | None = None
    ) -> None:
        super().__init__(self._open, concurrency=mirror.limits.concurrency)
        self.config = config
        self.mirror = mirror
        self.shared = shared
        self.comparison: Comparison | None = None
        self.outcomes: dict[tuple[str, str], ItemOutcome] = {}
        """By source and destination."""
        self.told: list[RunMetrics] = [] if told is None else told
        """The numbers of the mirrors before it in the same flow run."""

    async def _open(self, run: Run) -> Session:
        names = dict.fromkeys(one.credentials for one in self.config.registries.values() if one.credentials)
        side = Side(credentials=tuple(names))
        stores = await self._object_stores()
        reached = {name: replace(await side.access(name), per_bucket=stores) for name in ("source", "destination")}

        def reach(name: str, concurrency: int) -> Access:
            del concurrency  # a flow has no settings beside those of the configuration
            return reached[name]

        return opened(self.config, [self.mirror], reach, run.cancel)

    async def _object_stores(self) -> dict[str, S3Options]:
        """The S3 Store blocks of the buckets that this mirror writes to."""
        wanted = {name: self.config.buckets.get(name, Bucket()).s3_store for name in self.mirror.buckets}
        return {bucket: await load_s3(block) for bucket, block in wanted.items() if block}

    @property
    def compared(self) -> Comparison:
        """Raises InvalidInput before anything is compared."""
        if self.comparison is None:
            raise InvalidInput("nothing is compared yet", hint="run compare_mirror first")
        return self.comparison

    def item(self, key: WorkKey) -> WorkItem:
        """Raises InvalidInput for something that isn't among the work of the comparison."""
        for item in self.compared.work:
            if item.key == key:
                return item
        raise InvalidInput(f"{key[0]} isn't among the changed images for {', '.join(key[1])}")

    def percent(self) -> float:
        """Of the images on their way to each destination, how many have come to an end, good or bad."""
        return round(percent(len(self.outcomes), sum(len(item.targets) for item in self.compared.work)), 1)

    def done(self, item: WorkItem, outcomes: tuple[ItemOutcome, ...]) -> None:
        self.outcomes.update({(item.source, one.destination): one for one in outcomes})

    def fail(self, items: Iterable[WorkItem], error: TransshipError) -> None:
        """Notes that the task run of these items failed, so that the report has a failure for it: the targets without
        an outcome failed; when all of them are done, all of them failed."""
        planned = [(item, target) for item in items for target in item.targets]
        outcomes = [self.outcomes.get((item.source, target.destination)) for item, target in planned]
        all_done = all(outcome is not None and outcome.status == DONE for outcome in outcomes)
        for (item, target), outcome in zip(planned, outcomes, strict=True):
            if outcome is None or all_done:
                self.done(item, (failed_by(item, target, error),))

    def leave(self, items: Iterable[WorkItem]) -> None:
        """Notes items that aren't begun, because another failed."""
        for item in items:
            self.done(item, stopped_before(item))
