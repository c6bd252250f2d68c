"""What the mirrors want at one destination, as the policy of a prune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from oci.errors import InvalidInput, NotFound, Refused
from oci.mirror import selection
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.facts import Facts
from oci.mirror.rules import TagRule
from oci.prune.keep import Keep
from oci.reference import StoreName
from oci.relocation.session import Session
from oci.store import Source


def keep_for(
    config: MirrorsConfig,
    name: StoreName,
    open_mirror: Callable[[Mirror], Session],
    *,
    vanished: bool = True,
    now: datetime | None = None,
) -> Keep:
    """What all mirrors to `name` want there: the tags that each selects at its source now, its bundle, what its lock
    pins. With `vanished` also tags that the source has no longer, as far as the rules go by names and versions. The
    destination may lack any of it, for a mirror may not have run yet.

    Raises InvalidInput when no mirror goes there, and whatever a source raises that can't be read; Refused when a
    source has nothing that its rules take, for an empty list is more likely a mistake than a wish.
    """
    keep = Keep()
    for mirror in mirrors_to(config, name):
        keep = keep.and_also(_of(mirror, name, open_mirror, vanished=vanished, now=now or datetime.now(UTC)))
    return keep


def mirrors_to(config: MirrorsConfig, name: StoreName) -> list[Mirror]:
    """Raises InvalidInput when there is none."""
    found = [mirror for mirror in config.mirrors if name in [one.store for one in mirror.destinations]]
    if not found:
        raise InvalidInput(f"no mirror goes to {name}", hint="name a destination of the mirrors, or what to keep")
    return found


def _of(
    mirror: Mirror, name: StoreName, open_mirror: Callable[[Mirror], Session], *, vanished: bool, now: datetime
) -> Keep:
    source = mirror.source
    if source.lock:
        return Keep(locks=(source.lock,))
    reference = source.reference
    if reference is not None:
        named = {"digests": (reference.digest,)} if reference.digest else {"tags": (reference.tag,)}
        return Keep(**named, optional=(reference.digest or reference.tag,))
    if source.store is None:
        raise InvalidInput(f"the mirror {mirror.name} has no source")
    with open_mirror(mirror) as session:
        return _of_repository(session, mirror, session.source(source.store), name, vanished=vanished, now=now)


def _of_repository(
    session: Session, mirror: Mirror, source: Source, name: StoreName, *, vanished: bool, now: datetime
) -> Keep:
    there = list(source.tags())
    ages = _Ages(session, source)
    ageless = [rule.model_copy(update={"minimum_age": timedelta()}) for rule in mirror.tags]
    # A tag that is too young yet isn't taken, but where it is already it may stay.
    taken = {tag for rules in (mirror.tags, ageless) for tag in selection.select(there, rules, ages, now).tags}
    if not taken:
        raise Refused(
            f"its rules take none of the {len(there)} tags that are there",
            side="source",
            store=str(source.name),
            subject=mirror.name,
            operation="selecting what to keep",
            hint="check the source and the rules; nothing was deleted",
        )
    if vanished:
        taken |= _vanished(session, mirror.tags, name, there)
    return Keep(tags=tuple(sorted(taken)), optional=tuple(sorted(taken)))


def _vanished(session: Session, rules: Sequence[TagRule], name: StoreName, there: Sequence[str]) -> set[str]:
    """Among the newest versions those count that the source has no longer: an upstream that lost its newest release
    doesn't make room for old ones."""
    try:
        here = list(session.destination(name).tags())
    except NotFound:
        return set()
    both = list(dict.fromkeys((*there, *here)))
    return set(selection.named(both, rules)) - set(there)


class _Ages:
    """Of images at the source; what is in place somewhere is asked for as well."""

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        self._source = source
        self._facts = Facts()
        self._known: dict[str, datetime | None] = {}

    def created(self, tags: Sequence[str]) -> Mapping[str, datetime | None]:
        left = [tag for tag in tags if tag not in self._known]
        self._known.update(zip(left, self._session.workers.map(self._asked, left), strict=True))
        return {tag: self._known[tag] for tag in tags}

    def in_place(self, tag: str) -> bool:
        del tag
        return False

    def _asked(self, tag: str) -> datetime | None:
        found = self._source.head_manifest(tag)
        return self._facts.created(self._session, self._source, found.digest) if found else None
