"""What is to be relocated for a mirror, as plain values: to be printed, cut into shards, sent to a worker, and tried
again; and which registries are given up, so that nothing more is tried there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from oci.errors import (
    Denied,
    InvalidDocument,
    InvalidInput,
    RateLimited,
    StoreError,
    TransshipError,
    Unauthorized,
    Unavailable,
)
from oci.mirror.config import Mirror
from oci.mirror.policy import KeepAlive, Policy
from oci.options import fields_of
from oci.reference import ARCHIVE_PREFIX, LAYOUT_PREFIX, StoreName, parse_any, parse_store, parse_tag
from oci.relocation.planner import Snapshot
from oci.relocation.request import CopyOptions, RelocationRequest

R = TypeVar("R")

TAGS = "tags"
BUNDLE = "bundle"
LOCK = "lock"
ARCHIVE = "archive"

WorkKey: TypeAlias = tuple[str, tuple[str, ...]]
"""The source and the destinations of an item."""


_SHARED = frozenset(CopyOptions.__struct_fields__) - {"tags"}
"""Options that a mirror and a copy both declare, but for `tags`: those of a mirror are rules."""

_DECIDED = frozenset({"policy", "require_signatures"})
"""A comparison decides on what tags and bundles show, by the names that they have; on what a lock pins, a plan."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One destination, the tags that it lacks or shows otherwise, and whether it had no tag at all."""

    destination: str
    tags: tuple[str, ...] = ()
    fresh: bool = False
    shown: bool = False
    """The tags show the image already: what is attached to it, or what it lists, is missing."""
    repair: bool = False
    """Ask for everything below the image, though the image itself is there."""


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
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
    options: dict[str, Any] = {}
    """Those of a copy that the mirror declares as well, in plain values."""
    keep_alive: str = KeepAlive.NEEDED.value
    contents: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For ARCHIVE: each image by digest, or bundle or lock, with its tags."""

    @classmethod
    def of(cls, mirror: Mirror, **fields: Any) -> WorkItem:
        """With the options of the mirror."""
        shared = [option for option in fields_of(Policy) if option.name in _SHARED]
        options = {option.name: option.show(getattr(mirror, option.name)) for option in shared}
        return cls(mirror=mirror.name, options=options, keep_alive=mirror.keep_alive.value, **fields)

    def request(self, target: Target) -> RelocationRequest:
        return self.requests(target)[0]

    def requests(self, target: Target) -> list[RelocationRequest]:
        """Those of an archive's contents, or else one."""
        how = CopyOptions.make(self.options)
        parts = [(TAGS, source, tags) for source, tags in self.contents] or [(self.kind, self.source, target.tags)]
        return [
            RelocationRequest(
                image=source if kind == TAGS else "",
                bundle=source if kind == BUNDLE else "",
                lock=source if kind == LOCK else "",
                to=target.destination,
                tags=tags,
                **{name: getattr(how, name) for name in self.options if kind == LOCK or name not in _DECIDED},
                repo_based_tags=self.keep_alive == KeepAlive.READABLE.value,
                tag_keeps_alive=self.keep_alive == KeepAlive.NEEDED.value,
                image_may_be_bundle=kind == TAGS,
                repair=target.repair,
            )
            for kind, source, tags in parts
        ]

    def snapshot(self, target: Target, listed: frozenset[str] | None = None) -> Snapshot:
        """What the comparison has found out already: the target's tags show something else, or nothing. `listed` are
        the tags of the source repository, where they were listed."""
        tag_lists = {parse_any(self.source).repository: listed} if listed is not None and self.kind == TAGS else {}
        return Snapshot({} if target.shown else dict.fromkeys(target.tags), target.fresh, tag_lists)

    @property
    def key(self) -> WorkKey:
        """What names the item among all work of its mirror: a bundle that goes to a repository and to an archive is two
        items with one source."""
        return self.source, tuple(target.destination for target in self.targets)

    def alone(self, target: Target) -> WorkItem:
        """The same for one destination."""
        return msgspec.structs.replace(self, targets=(target,))

    def without(self, destinations: Collection[str]) -> WorkItem:
        targets = tuple(target for target in self.targets if target.destination not in destinations)
        return msgspec.structs.replace(self, targets=targets)

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
    def stores(self) -> tuple[tuple[str, StoreName], ...]:
        """(side, store) of all that it reads and writes, as far as it knows by itself."""
        targets = tuple(("destination", parse_store(target.destination)) for target in self.targets)
        if self.kind == LOCK:
            return targets
        sources = [source for source, _ in self.contents] or [self.source]
        return (*dict.fromkeys(("source", parse_any(source).repository) for source in sources), *targets)

    @property
    def places(self) -> tuple[str, ...]:
        """The registries and folders behind `stores`, by side."""
        return tuple(sorted({place(side, store) for side, store in self.stores}, reverse=True))

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> WorkItem:
        """Makes an item of what JSON has. Raises InvalidDocument."""
        try:
            item = msgspec.convert(body, cls)
            for target in item.targets:
                parse_store(target.destination)
                for tag in target.tags:
                    parse_tag(tag)
        except (TypeError, KeyError, ValueError, InvalidInput) as error:
            raise InvalidDocument(f"not an item of work: {error}") from error
        return item


IN_A_ROW = 3
"""Failures of one kind, with no success at that registry between them, that make it the registry's own trouble."""

_COUNTED = frozenset(kind.__name__ for kind in (RateLimited, Unauthorized, Denied, Unavailable))


class Breaker:
    """Shared by all mirrors of a run; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row: dict[str, tuple[str, int]] = {}
        self._causes: dict[str, TransshipError] = {}
        self._stopped: TransshipError | None = None
        self._idle = threading.Condition(self._lock)
        self._busy = 0

    @property
    def causes(self) -> Mapping[str, TransshipError]:
        """By place (`destination registry.corp.example`): why nothing more is asked of it."""
        with self._lock:
            return dict(self._causes)

    def stop(self, error: TransshipError, seconds: float) -> None:
        """Nothing more is begun, wherever it would go. Returns when nothing is on its way any more, or after so many
        seconds."""
        with self._idle:
            self._stopped = error
            self._idle.wait_for(lambda: not self._busy, seconds)

    def busy(self, function: Callable[..., R], *arguments: Any, **options: Any) -> R:
        """Calls the function; until it returns, something is on its way."""
        with self._lock:
            self._busy += 1
        try:
            return function(*arguments, **options)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    @property
    def stopped(self) -> bool:
        with self._lock:
            return self._stopped is not None

    def cause(self, places: Iterable[str]) -> TransshipError | None:
        """Why something that needs these places isn't worth trying, or None."""
        with self._lock:
            return self._stopped or next((self._causes[place] for place in places if place in self._causes), None)

    def succeeded(self, places: Iterable[str]) -> None:
        with self._lock:
            for place in places:
                self._row.pop(place, None)

    def failed(self, error: TransshipError) -> None:
        if isinstance(error, StoreError):
            self.noted(type(error).__name__, error.side, error.store, error)

    def noted(self, kind: str, side: str, store: str, error: TransshipError) -> None:
        """The same for a failure of which only words are left; `kind` is the name of its class."""
        if not side or not store or kind not in _COUNTED:
            return
        where = place(side, store)
        with self._lock:
            before, count = self._row.get(where, (kind, 0))
            count = count + 1 if before == kind else 1
            self._row[where] = (kind, count)
            if count >= IN_A_ROW or kind == RateLimited.__name__:
                self._causes.setdefault(where, error)


def place(side: str, store: StoreName | str) -> str:
    """The place that a store belongs to: its registry; a layout folder is one by itself."""
    name = str(store)
    return f"{side} {name if name.startswith(LAYOUT_PREFIX) else name.partition('/')[0]}"
