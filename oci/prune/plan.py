"""The policy of a prune, which says what is to be kept at a destination; and the plan that it leads to: a frozen value
to be printed, reviewed, stored as JSON and carried out later."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import msgspec

from oci.bundle.tagnames import attached_to
from oci.descriptor import parse_json
from oci.digest import Digest, digest_of, hex_of, parse_digest
from oci.errors import InvalidDocument, InvalidInput
from oci.options import Options, option
from oci.prune.versions import check_patterns, in_ranges, matches, parse_range, read_version
from oci.reference import StoreName, parse_any, parse_store, parse_tag

_LISTS = ("tags", "patterns", "versions", "digests", "locks", "bundles")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class KeepOptions(Options):
    """What is to be kept. Each of these rules is enough. What a kept manifest needs is kept with it."""

    tags: tuple[Text, ...] = option(
        (),
        "Tags by their exact names. A prune is refused when the repository lacks one of them.",
        examples=[["latest"]],
        max_length=10_000,
        flag="--keep-tag",
    )
    patterns: tuple[Text, ...] = option(
        (),
        "Regular expressions for whole names of tags.",
        examples=[[r"v\d+\.\d+\.\d+"]],
        max_length=100,
        flag="--keep",
        commas=False,
    )
    versions: tuple[Text, ...] = option(
        (),
        "Ranges of semantic versions, as npm writes them: '^1.4'.",
        examples=[["^1.4", ">=2 <3"]],
        max_length=100,
        flag="--keep-version",
        commas=False,
    )
    latest: int = option(
        0,
        "The tags of this many newest versions; pre-releases don't count.",
        title="Newest versions",
        ge=0,
        le=100_000,
        flag="--keep-latest",
    )
    digests: tuple[Digest, ...] = option(
        (), "Manifests by digest, with all they list.", max_length=10_000, flag="--keep-digest"
    )
    locks: tuple[Text, ...] = option(
        (),
        "ImagesLock and BundleLock files: what they pin, whatever repository they name.",
        examples=[["/etc/transship/images.lock.yml"]],
        max_length=1000,
        flag="--keep-lock",
    )
    bundles: tuple[Text, ...] = option(
        (),
        "Bundles of any repository, by reference: they and all they list are kept.",
        examples=[["registry.corp.example/mirror/shop:1.4.0"]],
        max_length=1000,
        flag="--keep-bundle",
    )
    nothing: bool = option(
        False,
        "Delete everything, on purpose. A policy that keeps nothing is refused without it.",
        title="Keep nothing",
        flag="--keep-nothing",
    )


class Keep(KeepOptions):
    """The policy of a prune. Raises InvalidInput for what can't be read.

    Tags that are attached to a digest (`sha256-<hex>.imgpkg`, `.sig`...) live and die with it; of the rules, only
    `tags` and `patterns` look at them. See oci.prune.versions for which tags are versions.
    """

    optional: tuple[str, ...] = option(
        (), "Names among `tags` and `digests` that the destination may lack: those of mirrors, locks and bundles."
    )

    def __post_init__(self) -> None:
        for tag in self.tags:
            parse_tag(tag)
        for digest in self.digests:
            parse_digest(digest)
        for reference in self.bundles:
            parse_any(reference)
        if self.latest < 0:
            raise InvalidInput(f"{self.latest}: the number of newest versions to keep can't be negative")
        try:
            check_patterns(self.patterns)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        for text in self.versions:
            try:
                parse_range(text)
            except ValueError as error:
                hint = "write one as npm does, such as ^1.4 or '>=2 <3'"
                raise InvalidInput(f"{text!r} is no range of versions", hint=hint) from error

    @property
    def is_empty(self) -> bool:
        return not (self.latest or any(getattr(self, name) for name in _LISTS))

    @property
    def required(self) -> tuple[str, ...]:
        """Exact names and digests that must be at the destination."""
        return tuple(name for name in (*self.tags, *self.digests) if name not in set(self.optional))

    def and_also(self, other: Keep) -> Keep:
        """Keeps what either keeps. What one of them requires is required."""
        both: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name)))) for name in _LISTS
        }
        required = {*self.required, *other.required}
        optional = dict.fromkeys(name for name in (*self.optional, *other.optional) if name not in required)
        latest, nothing = max(self.latest, other.latest), self.nothing and other.nothing
        return Keep(**both, latest=latest, nothing=nothing, optional=tuple(optional))

    def chosen(self, tags: Iterable[str]) -> frozenset[str]:
        """Returns those of `tags` that the policy names."""
        names = frozenset(tags)
        chosen = names & frozenset(self.tags)
        chosen |= {name for name in names if matches(name, self.patterns)}
        tags_read = {name: read for name in names if not attached_to(name) and (read := read_version(name))}
        if self.versions:
            chosen |= {
                name
                for name, read in tags_read.items()
                if in_ranges(read.version, self.versions, prereleases=False, counter=read.counter)
            }
        released = {read.version for read in tags_read.values() if not read.version.prerelease}
        newest = set(sorted(released, reverse=True)[: self.latest])
        return chosen | {name for name, read in tags_read.items() if read.version in newest}


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
