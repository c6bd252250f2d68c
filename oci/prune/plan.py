"""The plan of a prune, a frozen value to be printed, reviewed, stored as JSON and carried out later; and the reports of
what was done."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from oci.descriptor import parse_json
from oci.digest import Digest, digest_of, hex_of, parse_digest
from oci.errors import InvalidDocument, InvalidInput, StoreError
from oci.meter import Receipt
from oci.prune.policy import Keep
from oci.reference import StoreName, parse_store, parse_tag
from oci.units import counted, show_size

PLAN_VERSION = 1

T = TypeVar("T", "UnwantedManifest", "UnwantedTag")


class UnwantedManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A manifest that nothing kept needs, with every tag that shows it. Sizes in bytes."""

    digest: Digest
    kind: str
    """"image", "index", "bundle", "artifact", or "attachment" for what a tag attaches to another digest."""
    size: int
    blobs: tuple[tuple[Digest, int], ...] = ()
    """Those that no kept manifest lists, as far as kept ones were read."""
    tags: tuple[str, ...] = ()
    after: tuple[Digest, ...] = ()
    """Unwanted manifests that list it or that it is attached to: they go first."""
    since: datetime
    """First seen unwanted, as it is now: with these tags."""
    due: bool = True
    """Its grace period is over, and that of all in `after`."""

    def __str__(self) -> str:
        return f"{self.digest} ({', '.join(self.tags)})" if self.tags else str(self.digest)


class UnwantedTag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tag that isn't wanted, on a manifest that is needed."""

    tag: str
    digest: Digest
    because: str
    """What needs the manifest."""
    others: tuple[str, ...] = ()
    """Tags on the same manifest that stay."""
    since: datetime
    due: bool = True


class PrunePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a destination has beyond a policy. Manifests stand in the order in which they go: before all they list."""

    destination: str
    keep: Keep
    grace: timedelta
    made: datetime
    manifests: tuple[UnwantedManifest, ...] = ()
    tags: tuple[UnwantedTag, ...] = ()
    tags_seen: int = 0
    manifests_kept: int = 0
    warnings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """What a look at this destination can't show, and a deletion may therefore touch; to be read before approving."""
    version: int = PLAN_VERSION

    @property
    def store(self) -> StoreName:
        """Returns the destination; `destination` is the text that JSON has."""
        return parse_store(self.destination)

    @property
    def by_digest(self) -> Mapping[Digest, UnwantedManifest]:
        return {manifest.digest: manifest for manifest in self.manifests}

    @property
    def due_manifests(self) -> tuple[UnwantedManifest, ...]:
        return tuple(manifest for manifest in self.manifests if manifest.due)

    @property
    def due_tags(self) -> tuple[UnwantedTag, ...]:
        return tuple(tag for tag in self.tags if tag.due)

    @property
    def bytes_to_free(self) -> int:
        """At most: what is due, with the blobs that nothing else lists. A registry frees them when it collects garbage,
        and other repositories may use them."""
        return bytes_freed(self.manifests, {manifest.digest for manifest in self.due_manifests})

    @property
    def fingerprint(self) -> str:
        """32 characters that are the same for plans that delete the same, names included: what a person approves."""
        due = [f"{manifest.digest} {' '.join(manifest.tags)}" for manifest in self.due_manifests]
        due += [f"{tag.tag}@{tag.digest}" for tag in self.due_tags]
        return hex_of(digest_of("\n".join([self.destination, *sorted(due)]).encode()))[:32]

    @property
    def waiting(self) -> int:
        """Counts manifests and tags whose grace period isn't over."""
        return len(self.manifests) + len(self.tags) - len(self.due_manifests) - len(self.due_tags)

    @property
    def is_empty(self) -> bool:
        """Nothing is to be deleted now."""
        return not (self.due_manifests or self.due_tags)

    def to_dict(self) -> dict[str, Any]:
        """Times in ISO 8601, the grace period in seconds."""
        plain: dict[str, Any] = parse_json(self.to_json())
        return plain

    def to_json(self) -> str:
        body = msgspec.to_builtins(self, builtin_types=(datetime, timedelta))
        return json.dumps(body, indent=1, default=_plain)

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """Returns the inverse of `to_json`. Raises InvalidDocument for another version or shape, and for a field that a
        newer program may have written: it could say what is to stay."""
        try:
            body = parse_json(text)
            if not isinstance(body, dict):
                raise InvalidDocument("not a prune plan: expected an object")
            if body.get("version") != PLAN_VERSION:
                raise InvalidDocument(f"prune plan version {body.get('version')!r}, expected {PLAN_VERSION}")
            if isinstance(body.get("keep"), dict):
                body["keep"] = Keep.make(body["keep"])
            plan = msgspec.convert(body, cls, strict=False)
            _ = plan.store  # raises for a text that names none
            for manifest in plan.manifests:
                _check_names((manifest.digest, *manifest.after, *(blob for blob, _ in manifest.blobs)), manifest.tags)
            for tag in plan.tags:
                _check_names((tag.digest,), (tag.tag, *tag.others))
            return msgspec.structs.replace(
                plan, manifests=_in_utc(plan.manifests), tags=_in_utc(plan.tags), made=_time(plan.made)
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, InvalidInput) as error:
            if isinstance(error, InvalidDocument):
                raise
            raise InvalidDocument(f"not a prune plan: {error}") from error


def bytes_freed(manifests: Collection[UnwantedManifest], gone: Collection[Digest]) -> int:
    """When those of `manifests` that are `gone` go, and the others stay."""
    used = {digest for manifest in manifests if manifest.digest not in gone for digest, _ in manifest.blobs}
    blobs = {digest: size for manifest in manifests if manifest.digest in gone for digest, size in manifest.blobs}
    return sum(manifest.size for manifest in manifests if manifest.digest in gone) + sum(
        size for digest, size in blobs.items() if digest not in used
    )


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that is gone, and the tags that went with it."""

    digest: Digest
    kind: str
    tags: tuple[str, ...] = ()


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or tag of the plan that is still at the destination, and why."""

    subject: str
    reason: str
    retryable: bool = False

    @property
    def as_error(self) -> StoreError:
        return StoreError(f"{self.subject}: {self.reason}", retryable=self.retryable)


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune did. Sizes in bytes. `skipped` were spared, because something has changed since the plan was made;
    `refused` are tags that the registry can't take away alone; `failed` could not be deleted."""

    destination: str
    deleted: tuple[Deleted, ...] = ()
    untagged: tuple[str, ...] = ()
    skipped: tuple[Remaining, ...] = ()
    refused: tuple[Remaining, ...] = ()
    failed: tuple[Remaining, ...] = ()
    gone: int = 0
    """Number of things of the plan that other programs have deleted already."""
    waiting: int = 0
    """What is unwanted and not yet for as long as the grace period."""
    bytes_freed: int = 0
    """A layout folder: what its disk got back. A registry: what it can free when it collects garbage, at most."""
    receipt: Receipt

    def to_dict(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(self), "receipt": self.receipt.to_dict()}


class PruneRunReport(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of one flow run. Sizes in bytes."""

    destination: str
    outcome: str
    """"deleted", "nothing to delete", "planned", "denied" or "failed"."""
    note: str = ""
    """What the person wrote who was asked."""
    planned: int = 0
    """Manifests and tags that the plan was to delete."""
    deleted: list[str] = []
    """Digests."""
    tags_deleted: list[str] = []
    """Names that went, with their manifests or alone."""
    skipped: tuple[Remaining, ...] = ()
    refused: tuple[Remaining, ...] = ()
    failed: tuple[Remaining, ...] = ()
    gone: int = 0
    waiting: int = 0
    kept: int = 0
    bytes_freed: int = 0
    requests: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, plan: PrunePlan, report: PruneReport, note: str) -> PruneRunReport:
        shared = ("destination", "skipped", "refused", "failed", "gone", "waiting", "bytes_freed")
        return cls(
            **{name: getattr(report, name) for name in shared},
            outcome="failed" if report.failed else "deleted",
            note=note,
            planned=len(plan.due_manifests) + len(plan.due_tags),
            deleted=[str(manifest.digest) for manifest in report.deleted],
            tags_deleted=[*(tag for manifest in report.deleted for tag in manifest.tags), *report.untagged],
            kept=plan.manifests_kept,
            requests=report.receipt.total_requests,
            seconds=round(report.receipt.seconds, 3),
        )

    def __str__(self) -> str:
        if self.outcome in ("denied", "planned", "nothing to delete"):
            return f"{self.destination}: {self.outcome}; {self.planned} were to delete, {self.waiting} are waiting"
        deleted = f"{counted(len(self.deleted), 'manifest')} and {counted(len(self.tags_deleted), 'tag')} deleted"
        return (
            f"{self.destination}: {deleted}, "
            f"{len(self.skipped)} left, {len(self.failed)} failed, {show_size(self.bytes_freed)} freed"
        )


def _check_names(digests: Iterable[str], tags: Iterable[str]) -> None:
    """Checks the grammar of every name before it becomes part of a URL. Raises ValueError."""
    for digest in digests:
        parse_digest(digest)
    for tag in tags:
        parse_tag(tag)


def _in_utc(entries: Iterable[T]) -> tuple[T, ...]:
    return tuple(msgspec.structs.replace(entry, since=_time(entry.since)) for entry in entries)


def _time(moment: datetime) -> datetime:
    """Raises ValueError for a time without a zone, which could be any."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(type(value).__name__)
