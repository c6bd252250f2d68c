"""The images of a relocation, shared with helpers: what a shard is as text, and what a helper says of it."""

from __future__ import annotations

import base64
import binascii
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from prefect.logging import get_run_logger

from oci.descriptor import parse_json
from oci.digest import Digest
from oci.errors import InvalidDocument, StoreError
from oci.relocation.plan import Plan, PlannedManifest
from oci.relocation.session import Session
from oci.relocation.shards import Weights, cut, local_stores, part_of, with_present_marked
from oci.relocation.transfer import DONE, ImageOutcome, failure
from oci.units import show_size
from tasks.access import access_was_given
from tasks.fleet.limits import limits_of
from tasks.fleet.queue import ShardQueue, ShardResult
from tasks.relocate import RelocationRun

_LONGEST = 64 << 20
"""Bytes of a plan that a helper unpacks, at the most."""

HelperParameters = Callable[[ShardQueue], Mapping[str, Any]]


def pack(session: Session, shard: Plan) -> str:
    """Returns a plan as short text: with the manifests that planning has read, so that nobody reads them again."""
    manifests = tuple(_with_text(session, manifest) for manifest in shard.manifests)
    body = json.dumps(replace(shard, manifests=manifests).to_dict(), separators=(",", ":"))
    return base64.b64encode(zlib.compress(body.encode(), 6)).decode()


def unpack(text: str) -> Plan:
    """Returns the inverse of `pack`. Raises InvalidDocument."""
    try:
        inflate = zlib.decompressobj()
        body = inflate.decompress(base64.b64decode(text, validate=True), _LONGEST)
        if inflate.unconsumed_tail:
            raise InvalidDocument(f"a shard is longer than {_LONGEST} bytes")
        return Plan.from_dict(parse_json(body))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise InvalidDocument(f"not a shard of a relocation: {error}") from error


def _with_text(session: Session, manifest: PlannedManifest) -> PlannedManifest:
    raw = None if manifest.raw or manifest.present else session.cache.get(manifest.digest)
    try:
        return replace(manifest, raw=raw.decode()) if raw else manifest
    except UnicodeDecodeError:
        return manifest


def result_of(run: RelocationRun, images: Sequence[Digest]) -> str:
    """Returns what has become of some images, and what the run has cost so far."""
    outcomes = [run.outcomes[digest] for digest in images if digest in run.outcomes]
    return ShardResult(outcomes, run.receipt()).to_json()


async def open_shard(run: RelocationRun, text: str, *, ask: bool) -> list[Digest]:
    """Adds a shard to the run of a helper, and returns its images, biggest first. With `ask`, the destination is asked
    which of them it has by now."""
    shard = unpack(text)
    if ask:
        shard = await run.in_thread(with_present_marked, await run.session(), shard)
    if run.plan is None:
        await run.limit(limits_of(shard.destination, *{image.store for image in shard.to_transfer}))
    run.add(shard)
    get_run_logger().info("%d images to copy: %s", len(shard.to_transfer), show_size(shard.bytes_to_move))
    for image in shard.images:
        if image.present:
            run.outcomes[image.digest] = _outcome_of(image)
    return [image.digest for image in sorted(shard.to_transfer, key=lambda image: -shard.bytes_below(image))]


def stays_here(plan: Plan) -> str:
    """Returns why no other machine can do a part of a plan, or nothing."""
    folders = local_stores(plan)
    if folders:
        return f"done by this run alone: {folders[0]} is on this machine"
    return "done by this run alone: the credentials are this machine's own" if access_was_given() else ""


class RelocationWork:
    """The images of a relocation as units of tasks.fleet.spread.Work: digests."""

    def __init__(
        self, run: RelocationRun, session: Session, parameters: HelperParameters, *, trusting: bool = True
    ) -> None:
        """Without `trusting`, an image that was there before counts for nothing."""
        self._run = run
        self._session = session
        self._parameters = parameters
        self._trusting = trusting
        self._weights = Weights(run.planned)
        self._moving: tuple[float, Mapping[Digest, int]] = (0.0, {})
        """When `busy` was last called, and what was on its way then."""

    def progress(self) -> float:
        return float(self._weights.of_work(self._run.receipt(), self._session.moving))

    def weight(self, units: Sequence[Digest]) -> float:
        return float(self._weights.of_images(units, moved=self._session.moved.copy()))

    def busy(self) -> float:
        now, moving = time.monotonic(), self._session.moving.copy()
        (then, before), self._moving = self._moving, (now, moving)
        return self._weights.seconds_left(moving, before, now - then)

    def cut(self, units: Sequence[Digest], *, workers: int, least: float) -> list[list[Digest]]:
        plan = self._run.planned
        return cut(plan, [plan.by_digest[digest] for digest in units], workers=workers, least=least)

    def pack(self, units: Sequence[Digest], *, again: bool) -> str:
        plan = self._run.planned
        shard = part_of(plan, [plan.by_digest[digest] for digest in units])
        return pack(self._session, replace(shard, fresh=shard.fresh and not again))

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        return self._parameters(queue)

    def note(self, helper: str, text: str) -> None:
        reported = msgspec.json.decode(text, type=ShardResult[ImageOutcome])
        reported.note(self._run.outcomes, lambda outcome: outcome.digest, self._run.elsewhere, helper)

    async def remaining(self, units: Sequence[Digest]) -> list[Digest]:
        if not self._trusting:
            return list(units)
        plan = self._run.planned
        shard = part_of(plan, [plan.by_digest[digest] for digest in units])
        marked = await self._run.in_thread(with_present_marked, self._session, shard)
        missing = {image.digest for image in marked.to_transfer}
        for image in shard.to_transfer:
            if image.digest not in missing:
                self._run.outcomes.setdefault(image.digest, _outcome_of(image))
        get_run_logger().warning("a helper was lost: %d of %d images are left of its shard", len(missing), len(units))
        return [digest for digest in units if digest in missing]

    def fail(self, units: Sequence[Digest], reason: str) -> None:
        plan = self._run.planned
        for digest in units:
            error = StoreError(
                f"was not copied: {reason}",
                side="destination",
                store=str(plan.destination),
                subject=digest,
                retryable=True,
            )
            self._run.outcomes[digest] = failure(plan.by_digest[digest], error)


def _outcome_of(image: PlannedManifest) -> ImageOutcome:
    """Returns the outcome of an image that is in place although its helper sent no last word."""
    return ImageOutcome(digest=image.digest, subject=image.subject, role=image.role.value, status=DONE)
