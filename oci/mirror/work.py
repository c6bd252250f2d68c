"""What has to be relocated for a mirror, as plain values: to be printed, cut into shards, sent to a worker, and tried
again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from oci.errors import InvalidDocument
from oci.mirror.breaker import place
from oci.mirror.config import Mirror
from oci.mirror.rules import KeepAlive
from oci.reference import ARCHIVE_PREFIX, parse_any, parse_store
from oci.relocation.planner import Seen
from oci.relocation.request import Artifact, RelocationRequest

TAGS = "tags"
BUNDLE = "bundle"
LOCK = "lock"
ARCHIVE = "archive"

WorkKey: TypeAlias = tuple[str, tuple[str, ...]]
"""The source and the destinations of an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One destination, the tags that it lacks or shows otherwise, and whether it had no tag at all."""

    destination: str
    tags: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One changed image of a mirror, with every tag that it has and every destination that lacks it."""

    mirror: str
    kind: str
    """TAGS: an image, index or bundle that tags of a repository show. BUNDLE. LOCK. ARCHIVE: all of a mirror, for one
    archive."""
    source: str
    """The image by digest; the path of a lock; the name of an archive."""
    names: tuple[str, ...]
    """What it is called where it comes from: HOST/REPOSITORY:TAG for each tag, the reference or path of the others. The
    list of what failed is made of these."""
    targets: tuple[Target, ...]
    artifacts: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    keep_alive: str = KeepAlive.NEEDED.value
    contents: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For ARCHIVE: each image by digest, or bundle or lock, with its tags."""

    @classmethod
    def of(
        cls, mirror: Mirror, kind: str, source: str, *, names: tuple[str, ...], targets: tuple[Target, ...]
    ) -> WorkItem:
        return cls(
            mirror=mirror.name,
            kind=kind,
            source=source,
            names=names,
            targets=targets,
            artifacts=tuple(artifact.value for artifact in mirror.artifacts),
            platforms=tuple(mirror.platforms),
            keep_alive=mirror.keep_alive.value,
        )

    def request(self, target: Target) -> RelocationRequest:
        return self._request(self.kind, self.source, target.tags, target)

    def requests(self, target: Target) -> list[RelocationRequest]:
        """Those of an archive's contents."""
        return [self._request(TAGS, source, tags, target) for source, tags in self.contents] or [self.request(target)]

    def _request(self, kind: str, source: str, tags: tuple[str, ...], target: Target) -> RelocationRequest:
        return RelocationRequest(
            image=source if kind == TAGS else "",
            bundle=source if kind == BUNDLE else "",
            lock=source if kind == LOCK else "",
            to=target.destination,
            tags=tags,
            artifacts=frozenset(map(Artifact, self.artifacts)),
            platforms=self.platforms,
            repo_based_tags=self.keep_alive == KeepAlive.READABLE.value,
            tag_keeps_alive=self.keep_alive == KeepAlive.NEEDED.value,
            image_may_be_bundle=kind == TAGS,
        )

    def seen(self, target: Target, listed: frozenset[str] | None = None) -> Seen:
        """What the comparison has found out already: the target's tags show something else, or nothing. `listed` are
        the tags of the source repository, where they were listed."""
        known = {parse_any(self.source).repository: listed} if listed is not None and self.kind == TAGS else {}
        return Seen(dict.fromkeys(target.tags), target.fresh, known)

    @property
    def key(self) -> WorkKey:
        """What names the item among all work of its mirror: a bundle that goes to a repository and to an archive is two
        items with one source."""
        return self.source, tuple(target.destination for target in self.targets)

    def alone(self, target: Target) -> WorkItem:
        """The same for one destination."""
        return replace(self, targets=(target,))

    @property
    def writes_archive(self) -> bool:
        """Whether a destination is an archive: a file of this machine, or an object that is written as a whole."""
        return any(target.destination.startswith(ARCHIVE_PREFIX) for target in self.targets)

    @property
    def title(self) -> str:
        """`web:1.4.0`, `web:1.4.0 and 2 more`: short, for people."""
        first = self.names[0] if self.names else self.source
        short = self.mirror if self.kind == ARCHIVE else first.rpartition("/")[2]
        return short if len(self.names) < 2 else f"{short} and {len(self.names) - 1} more"

    @property
    def stores(self) -> tuple[tuple[str, str], ...]:
        """(side, store) of all that it reads and writes, as far as it knows by itself."""
        targets = tuple(("destination", target.destination) for target in self.targets)
        if self.kind == LOCK:
            return targets
        sources = [source for source, _ in self.contents] or [self.source]
        return (*dict.fromkeys(("source", str(parse_any(source).repository)) for source in sources), *targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The registries and folders behind `stores`, by side."""
        return tuple(sorted({place(side, store) for side, store in self.stores}, reverse=True))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> WorkItem:
        """The inverse of `to_dict`. Raises InvalidDocument."""
        try:
            targets = tuple(
                Target(destination=str(one["destination"]), tags=tuple(one["tags"]), fresh=bool(one["fresh"]))
                for one in body["targets"]
            )
            for target in targets:
                parse_store(target.destination)
            lists: dict[str, Any] = {key: tuple(body[key]) for key in ("names", "artifacts", "platforms")}
            lists["contents"] = tuple((str(source), tuple(tags)) for source, tags in body["contents"])
            return cls(**{**body, **lists, "targets": targets})
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidDocument(f"not an item of work: {error}") from error
