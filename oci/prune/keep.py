"""What is wanted at a destination: the policy that a prune measures everything against."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from oci.bundle.lockfile import BundleLock, read_lock
from oci.digest import Digest, parse_digest
from oci.errors import InvalidInput
from oci.prune.attached import attached_to
from oci.ranges import parse_range
from oci.reference import parse_tag
from oci.versions import in_ranges, version_of

_LISTS = ("tags", "patterns", "versions", "digests", "locks")


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Any one of these is enough for a tag to be kept. Raises InvalidInput for what can't be read.

    Tags that are attached to a digest (`sha256-<hex>.imgpkg`, `.sig`...) live and die with it; of the rules below, only
    `tags` and `patterns` look at them.
    """

    tags: tuple[str, ...] = ()
    """Exact names."""
    patterns: tuple[str, ...] = ()
    """Regular expressions for the whole name."""
    versions: tuple[str, ...] = ()
    """Ranges of semantic versions, as npm writes them: `^1.4`, `>=2 <3`. See oci.versions for which tags are some."""
    latest: int = 0
    """The tags of so many newest versions; pre-releases don't count."""
    digests: tuple[Digest, ...] = ()
    locks: tuple[str, ...] = ()
    """ImagesLock and BundleLock files. What they pin is kept by its digest, whatever repository they name."""
    nothing: bool = False
    """Said on purpose: a policy may keep nothing at all. Without it such a one is refused."""

    def __post_init__(self) -> None:
        for tag in self.tags:
            parse_tag(tag)
        for digest in self.digests:
            parse_digest(digest)
        if self.latest < 0:
            raise InvalidInput(f"{self.latest}: the number of newest versions to keep can't be negative")
        _ = self._matchers
        for text in self.versions:
            _check_range(text)

    @property
    def is_empty(self) -> bool:
        return not (self.tags or self.patterns or self.versions or self.latest or self.digests or self.locks)

    def with_locks_read(self) -> Keep:
        """The same with the digests of its locks instead of their paths. Raises NotFound, Denied or InvalidDocument."""
        pinned: list[Digest] = []
        for path in self.locks:
            lock = read_lock(path)
            images = [lock.image] if isinstance(lock, BundleLock) else [image.image for image in lock.images]
            pinned.extend(image.digest for image in images if image.digest)
        return replace(self, digests=tuple(dict.fromkeys((*self.digests, *pinned))), locks=())

    def and_also(self, other: Keep) -> Keep:
        """Keeps what either keeps."""
        both: dict[str, Any] = {name: (*getattr(self, name), *getattr(other, name)) for name in _LISTS}
        both = {name: tuple(dict.fromkeys(values)) for name, values in both.items()}
        return Keep(**both, latest=max(self.latest, other.latest), nothing=self.nothing and other.nothing)

    def chosen(self, tags: Iterable[str]) -> frozenset[str]:
        """Those of `tags` that the policy names."""
        names = frozenset(tags)
        kept = names & frozenset(self.tags)
        kept |= {name for name in names if any(matcher.fullmatch(name) for matcher in self._matchers)}
        known = {name: version for name in names if not attached_to(name) and (version := version_of(name))}
        if self.versions:
            kept |= {name for name, one in known.items() if in_ranges(one, self.versions, prereleases=False)}
        released = {version for version in known.values() if not version.prerelease}
        newest = set(sorted(released, reverse=True)[: self.latest])
        return kept | {name for name, version in known.items() if version in newest}

    def to_dict(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in _LISTS} | {"latest": self.latest, "nothing": self.nothing}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Keep:
        """The inverse of `to_dict`. Raises InvalidInput, TypeError or KeyError."""
        lists: dict[str, Any] = {name: tuple(body[name]) for name in _LISTS}
        return cls(**lists, latest=int(body["latest"]), nothing=bool(body["nothing"]))

    @cached_property
    def _matchers(self) -> tuple[re.Pattern[str], ...]:
        try:
            return tuple(re.compile(pattern) for pattern in self.patterns)
        except re.error as error:
            raise InvalidInput(f"{error.pattern!r} is no regular expression: {error}") from error


def _check_range(text: str) -> None:
    try:
        parse_range(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is no range of versions", hint="write one as npm does, such as ^1.4 or '>=2 <3'"
        ) from error
