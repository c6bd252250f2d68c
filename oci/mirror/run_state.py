"""What the mirrors of one run share: what is true of a digest for ever (when its image was made, what its index becomes
without some platforms), which repositories had a blob when it was last seen there, and which registries are given up.

A run keeps what it has learned in memory and, where it is given a file, for the next run: an unchanged mirror then
costs no request for it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from zlib import crc32

from oci.bundle import image as bundle_image
from oci.descriptor import Descriptor, Platform, parse_json
from oci.digest import Digest, is_digest
from oci.errors import Denied, InvalidReference, RateLimited, StoreError, TransshipError, Unauthorized, Unavailable
from oci.manifest import CREATED, NESTING_LIMIT, Manifest
from oci.mirror.config import Mirror
from oci.output import merge_own, read_own
from oci.reference import LAYOUT_PREFIX, Repository, StoreName
from oci.registry.state import default_folder
from oci.relocation.session import Session
from oci.store import Source

R = TypeVar("R")

VERSION = 1
_FILE_LIMIT = 64 << 20
ENTRY_LIMIT = 200_000
"""Facts that a file may hold; the oldest are dropped."""

_BEGINNING = datetime(1971, 1, 1, tzinfo=UTC)
"""Builds that leave the time out write the year 1, or 1970: they don't say when they were made."""

_UNKNOWN = "unknown"
AGES_UNKNOWN = (
    "a minimum_age of tags goes by what images say of themselves, for no run knows what an earlier one has seen"
)


class DigestCache:
    """Safe from any thread. `path` is the file; empty for memory alone."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._lock = threading.Lock()
        self._facts: dict[str, str] = _loaded(path) if path else {}
        self._changed = False
        self.unkept = "" if path else "no state is kept"
        """Why the next run knows nothing of this one; empty where it does."""

    def warning(self, mirrors: Iterable[Mirror]) -> str:
        """Returns what to say of a `minimum_age` in mirrors whose first sights aren't kept, or nothing."""
        has_ages = any(rule.minimum_age for mirror in mirrors for rule in mirror.tags)
        return f"{self.unkept}: {AGES_UNKNOWN}" if self.unkept and has_ages else ""

    def created(self, session: Session, source: Source, digest: Digest) -> datetime | None:
        """When the image was made, as its annotations or its config say; None when they don't. For an index, its first
        image."""
        key = f"created {digest}"
        if self._get(key) is None:
            created = _created(session, source, source.get_manifest(digest), 0)
            self._put(key, created.isoformat() if created else _UNKNOWN)
        return self._time(key)

    def narrowed(self, session: Session, source: Source, descriptor: Descriptor, platforms: Sequence[str]) -> Digest:
        """Returns the digest that an image of the source has at a destination that gets only some of its platforms.

        Raises InvalidInput for an index that has none of them.
        """
        if not platforms or not descriptor.is_index:
            return descriptor.digest
        key = f"narrowed {descriptor.digest} {' '.join(sorted(platforms))}"
        remembered = self._get(key)
        if remembered is None or not is_digest(remembered):
            from oci.platforms import narrowed  # noqa: PLC0415 - few mirrors choose platforms

            index = source.get_manifest(descriptor.digest)
            session.cache.put(index.digest, index.raw)
            chosen = narrowed(source, index, [Platform.parse(platform) for platform in platforms])
            remembered = chosen[-1].digest if chosen else descriptor.digest
            self._put(key, remembered)
        return Digest(remembered)

    def first_seen(self, repository: str, digest: Digest, now: datetime) -> datetime | None:
        """When this machine saw a digest in the repository for the first time; None for what was there when it looked
        at the repository for the first time, see `looked`."""
        key = f"seen {repository}@{digest}"
        if self._get(f"looked {repository}") is None:
            self._put(key, _UNKNOWN)
        elif self._get(key) is None:
            self._put(key, now.isoformat())
        return self._time(key)

    def age(self, repository: str, digest: Digest, now: datetime) -> timedelta:
        """How long ago this machine saw a digest in the repository for the first time; for what was there already when
        it looked at the repository for the first time, how long ago that was."""
        return now - (self.first_seen(repository, digest, now) or self._time(f"looked {repository}") or now)

    def looked(self, repository: str, now: datetime) -> None:
        """Notes that the repository was looked at: what appears from now on is new."""
        if self._get(f"looked {repository}") is None:
            self._put(f"looked {repository}", now.isoformat())

    def is_stray(self, repository: str, tag: str) -> bool:
        """Whether a signature's tag was found to belong to no image that is mirrored."""
        return self._get(f"stray {repository}:{tag}") is not None

    def stray(self, repository: str, tag: str) -> None:
        self._put(f"stray {repository}:{tag}", _UNKNOWN)

    def blob_locations(self) -> dict[tuple[str, Digest], Repository]:
        """By registry and digest, the repository that an earlier run knew to have a blob."""
        with self._lock:
            locations = [(key.split(" "), path) for key, path in self._facts.items() if key.startswith("blob ")]
        return {(registry, Digest(digest)): Repository(registry, path) for (_, registry, digest), path in locations}

    def locate(self, locations: Mapping[tuple[str, Digest], Repository]) -> None:
        """Notes which repositories have blobs, for later runs."""
        for (registry, digest), repository in locations.items():
            key = f"blob {registry} {digest}"
            if self._get(key) != repository.path:
                self._put(key, repository.path)

    def attached_due(self, key: str, every: timedelta, now: datetime) -> bool:
        """Whether what is attached to an image was last asked for so long ago; `key` names the image and its
        destination. Never without a file: each run would ask for every image then, and a check does it."""
        last = self._time(f"attached {key}")
        return bool(self._path) if last is None else now - last >= every

    def attached_asked(self, key: str, every: timedelta, now: datetime) -> None:
        """Notes that it was asked now. The first time counts as some time before, for each image another, so that not
        all of them are asked again in one run."""
        earlier = timedelta()
        if self._get(f"attached {key}") is None:
            earlier = every * (crc32(key.encode()) % 1000 / 2000)
        self._put(f"attached {key}", (now - earlier).isoformat())

    def save(self) -> None:
        """Writes the file when something was learned, with what another run has written meanwhile. A file that can't be
        written is no reason to fail: the facts are learned again next time."""
        with self._lock:
            if not self._path or not self._changed:
                return
            learned, self._changed = dict(self._facts), False

        def merged() -> bytes:
            body = {"version": VERSION, "facts": _bounded(_loaded(self._path) | learned)}
            return json.dumps(body, separators=(",", ":")).encode()

        try:
            merge_own(self._path, merged)
        except OSError as error:
            self.unkept = f"{self._path} can't be written: {error.strerror or error}"

    def _get(self, key: str) -> str | None:
        with self._lock:
            return self._facts.get(key)

    def _time(self, key: str) -> datetime | None:
        remembered = self._get(key)
        return None if remembered is None or remembered == _UNKNOWN else datetime.fromisoformat(remembered)

    def _put(self, key: str, value: str) -> None:
        with self._lock:
            self._facts[key] = value
            self._changed = True


def default_path() -> str:
    """In the cache folder of the user that runs this."""
    return os.path.join(default_folder(), "facts.json")


def _bounded(facts: dict[str, str]) -> dict[str, str]:
    """Without the oldest of too many. When a repository was looked at for the first time isn't among these: without it,
    what is new there would count as there from the beginning."""
    looked = [(key, value) for key, value in facts.items() if key.startswith("looked ")][-ENTRY_LIMIT // 2 :]
    others = [(key, value) for key, value in facts.items() if not key.startswith("looked ")]
    return dict([*looked, *others[-(ENTRY_LIMIT - len(looked)) :]])


def _loaded(path: str) -> dict[str, str]:
    """A file that isn't there, or isn't ours, holds nothing."""
    try:
        body = parse_json(read_own(path, _FILE_LIMIT))
    except (OSError, ValueError):
        return {}
    if not isinstance(body, dict) or body.get("version") != VERSION or not isinstance(body.get("facts"), dict):
        return {}
    return {key: value for key, value in body["facts"].items() if isinstance(value, str) and _is_fact(key, value)}


def _is_fact(key: str, value: str) -> bool:
    if key.startswith("blob "):
        return _is_location(key.split(" ")[1:], value)
    if not key.startswith(("created ", "seen ", "looked ", "stray ", "attached ")):
        return key.startswith("narrowed ")
    if value == _UNKNOWN:
        return not key.startswith("looked ")
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_location(key: Sequence[str], path: str) -> bool:
    """Whether these are a registry, a digest, and a path below that registry."""
    try:
        return len(key) == 2 and is_digest(key[1]) and str(Repository.parse(f"{key[0]}/{path}")) == f"{key[0]}/{path}"
    except InvalidReference:
        return False


def _created(session: Session, source: Source, manifest: Manifest, depth: int) -> datetime | None:
    annotated = _moment(manifest.annotations.get(CREATED))
    if annotated is not None or depth > NESTING_LIMIT:
        return annotated
    if manifest.is_index:
        first = next(iter(manifest.child_manifests), None)
        return _created(session, source, source.get_manifest(first.digest), depth + 1) if first else None
    config = manifest.config
    if config is None or config.size > bundle_image.CONFIG_LIMIT:
        return None
    data = session.read_small(source, config)
    try:
        body: Any = parse_json(data)
    except ValueError:
        return None
    return _moment(body.get("created")) if isinstance(body, dict) else None


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware if aware > _BEGINNING else None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the mirrors of one run share. `audit` asks for immutable tags as well, to see whether a tag moved;
    `thorough`, which a check is, also for signatures and ages of tags in place. `only` are names, HOST/REPOSITORY:TAG:
    nothing else is compared."""

    facts: DigestCache = field(default_factory=DigestCache)
    breaker: Breaker = field(default_factory=Breaker)
    audit: bool = False
    thorough: bool = False
    only: frozenset[str] = frozenset()
    now: datetime | None = None
