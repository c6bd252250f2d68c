"""The policy of a prune: what is to be kept at a destination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from oci.bundle.tagnames import attached_to
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.patterns import compile_pattern, matches
from oci.reference import parse_any, parse_tag
from oci.versions import in_ranges, parse_range, version_of

_LISTS = ("tags", "patterns", "versions", "digests", "locks", "bundles")


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Each of these rules is enough for a tag to be kept. Raises InvalidInput for what can't be read.

    Tags that are attached to a digest (`sha256-<hex>.imgpkg`, `.sig`...) live and die with it; of the rules below, only
    `tags` and `patterns` look at them.
    """

    tags: tuple[str, ...] = ()
    """Exact names. A prune is refused when the destination lacks one that isn't `optional`."""
    patterns: tuple[str, ...] = ()
    """Regular expressions for the whole name."""
    versions: tuple[str, ...] = ()
    """Ranges of semantic versions, as npm writes them: `^1.4`, `>=2 <3`. See oci.versions for which tags are some."""
    latest: int = 0
    """The tags of so many newest versions; pre-releases don't count."""
    digests: tuple[Digest, ...] = ()
    """Manifests. A prune is refused when the destination lacks one that isn't `optional`."""
    locks: tuple[str, ...] = ()
    """ImagesLock and BundleLock files. What they pin is kept by its digest, whatever repository they name."""
    bundles: tuple[str, ...] = ()
    """References of bundles in any repository. They and all they list are kept by digest."""
    nothing: bool = False
    """Allows a policy that keeps nothing at all. Without it such a policy is refused."""
    optional: tuple[str, ...] = ()
    """Names among `tags` and `digests` that the destination may lack: those that mirrors, locks and bundles give."""

    def __post_init__(self) -> None:
        for tag in self.tags:
            parse_tag(tag)
        for digest in self.digests:
            parse_digest(digest)
        for reference in self.bundles:
            parse_any(reference)
        if self.latest < 0:
            raise InvalidInput(f"{self.latest}: the number of newest versions to keep can't be negative")
        for pattern in self.patterns:
            try:
                compile_pattern(pattern)
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
        """Those of `tags` that the policy names."""
        names = frozenset(tags)
        kept = names & frozenset(self.tags)
        kept |= {name for name in names if matches(name, self.patterns)}
        known = {name: version for name in names if not attached_to(name) and (version := version_of(name))}
        if self.versions:
            kept |= {name for name, one in known.items() if in_ranges(one, self.versions, prereleases=False)}
        released = {version for version in known.values() if not version.prerelease}
        newest = set(sorted(released, reverse=True)[: self.latest])
        return kept | {name for name, version in known.items() if version in newest}

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._items()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Keep:
        """The inverse of `to_dict`. Raises InvalidInput or msgspec.ValidationError, which is a ValueError."""
        return msgspec.convert(body, cls)

    def _items(self) -> Iterable[tuple[str, Any]]:
        return msgspec.structs.asdict(self).items()
