"""The policy of a prune: what is to be kept at a destination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from oci.bundle.tagnames import attached_to
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.prune.versions import check_patterns, in_ranges, matches, parse_range, read_version
from oci.reference import parse_any, parse_tag

_LISTS = ("tags", "patterns", "versions", "digests", "locks", "bundles")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class KeepOptions(Options, frozen=True, kw_only=True):
    """What is to be kept. Each of these rules is enough. What a kept manifest needs is kept with it."""

    tags: Annotated[
        tuple[Text, ...],
        option(
            "Tags",
            "Tags by their exact names. A prune is refused when the repository lacks one of them.",
            examples=[["latest"]],
            max_length=10_000,
            flag="--keep-tag",
        ),
    ] = ()
    patterns: Annotated[
        tuple[Text, ...],
        option(
            "Patterns",
            "Regular expressions for whole names of tags.",
            examples=[[r"v\d+\.\d+\.\d+"]],
            max_length=100,
            flag="--keep",
            commas=False,
        ),
    ] = ()
    versions: Annotated[
        tuple[Text, ...],
        option(
            "Versions",
            "Ranges of semantic versions, as npm writes them: '^1.4'.",
            examples=[["^1.4", ">=2 <3"]],
            max_length=100,
            flag="--keep-version",
            commas=False,
        ),
    ] = ()
    latest: Annotated[
        int,
        option(
            "Newest versions",
            "The tags of this many newest versions; pre-releases don't count.",
            ge=0,
            le=100_000,
            flag="--keep-latest",
        ),
    ] = 0
    digests: Annotated[
        tuple[Digest, ...],
        option("Digests", "Manifests by digest, with all they list.", max_length=10_000, flag="--keep-digest"),
    ] = ()
    locks: Annotated[
        tuple[Text, ...],
        option(
            "Locks",
            "ImagesLock and BundleLock files: what they pin, whatever repository they name.",
            examples=[["/etc/transship/images.lock.yml"]],
            max_length=1000,
            flag="--keep-lock",
        ),
    ] = ()
    bundles: Annotated[
        tuple[Text, ...],
        option(
            "Bundles",
            "Bundles of any repository, by reference: they and all they list are kept.",
            examples=[["registry.corp.example/mirror/shop:1.4.0"]],
            max_length=1000,
            flag="--keep-bundle",
        ),
    ] = ()
    nothing: Annotated[
        bool,
        option(
            "Keep nothing",
            "Delete everything, on purpose. A policy that keeps nothing is refused without it.",
            flag="--keep-nothing",
        ),
    ] = False


class Keep(KeepOptions, frozen=True, kw_only=True):
    """The policy of a prune. Raises InvalidInput for what can't be read.

    Tags that are attached to a digest (`sha256-<hex>.imgpkg`, `.sig`...) live and die with it; of the rules, only
    `tags` and `patterns` look at them. See oci.prune.versions for which tags are versions.
    """

    optional: Annotated[
        tuple[str, ...],
        option(
            "Optional",
            "Names among `tags` and `digests` that the destination may lack: those of mirrors, locks and bundles.",
        ),
    ] = ()

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

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields, as a plan has them."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Keep:
        """Returns the inverse of `to_dict`. Raises InvalidInput or msgspec.ValidationError, which is a ValueError."""
        return msgspec.convert(body, cls)
