"""Which tags a mirror takes: by name, by version, the latest ones, by age; and what mirrors want at a destination, as
the policy of a prune.

What can be decided by names is decided without a request. When an image was made is asked only where a rule needs it,
and only as far: of the latest ones a rule stops asking when it has enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from oci.bundle import tagnames
from oci.errors import InvalidInput, InvalidReference, NotFound, Refused, TransshipError
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.policy import LatestBy, TagRule
from oci.mirror.run_state import DigestCache
from oci.prune.policy import Keep, in_ranges, matches, read_version
from oci.reference import Repository, StoreName
from oci.relocation.session import Session
from oci.store import Source
from oci.units import show_duration

_ATTACHED = re.compile(r"sha(256|512)-[0-9a-f]{64}(\.(sig|att|sbom))?")
"""Tags that cosign, and registries without a referrers API, keep for an image: they travel with it or not at all."""

_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\\?\.)*")

_STEP = 16
"""Images whose times are asked for together."""


class Ages(Protocol):
    """What is known of a tag's image beyond its name."""

    def created(self, tags: Sequence[str]) -> Mapping[str, datetime | None]:
        """When each was made; None where its image doesn't say."""

    def in_place(self, tag: str) -> bool:  # noqa: ARG002 - for those that know destinations
        """Whether the destinations have it already: no age keeps it from being where it is."""
        return False

    def first_seen(self, tag: str) -> datetime | None:  # noqa: ARG002 - for those that remember
        """When this machine saw the tag's image for the first time; None where it was there at the first look."""
        return None


@dataclass(frozen=True, slots=True)
class Selection:
    """`tags` are taken, in the order of the source; `too_young` are those that only their age keeps out, with the
    reason. `by` says which rule takes a tag, the first is 1."""

    tags: tuple[str, ...]
    too_young: Mapping[str, str]
    by: Mapping[str, int] = field(default_factory=dict)


class TagVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why a tag is taken or not. `rule` is the number of the rule that takes it, 0 where none does."""

    tag: str
    taken: bool
    rule: int = 0
    reason: str = ""


def explain(
    tags: Iterable[str], rules: Sequence[TagRule], never: Sequence[str], chosen: Selection | None
) -> list[TagVerdict]:
    """One verdict for each tag. `chosen` is what `select` made of those that `never` doesn't have."""
    return [_verdict(tag, rules, never, chosen or Selection((), {})) for tag in tags]


def _verdict(tag: str, rules: Sequence[TagRule], never: Sequence[str], chosen: Selection) -> TagVerdict:
    if tagnames.is_internal(tag) or _ATTACHED.fullmatch(tag):
        return TagVerdict(tag=tag, taken=False, reason="a tool keeps it for an image")
    if matches(tag, never):
        return TagVerdict(tag=tag, taken=False, reason="never")
    if not rules or tag in chosen.by:
        return TagVerdict(tag=tag, taken=True, rule=chosen.by.get(tag, 0))
    if tag in chosen.too_young:
        return TagVerdict(tag=tag, taken=False, reason=chosen.too_young[tag])
    reasons = []
    for number, rule in enumerate(rules, 1):
        beyond = f"latest: not among the {rule.latest} latest" if rule.latest else "its image has no place in it"
        reasons.append(f"rule {number}: {_refusal(rule, tag) or beyond}")
    return TagVerdict(tag=tag, taken=False, reason="; ".join(reasons))


def select(tags: Iterable[str], rules: Sequence[TagRule], ages: Ages, now: datetime | None = None) -> Selection:
    """A tag is taken when one of the rules takes it. Without rules every tag is, but for those that tools keep."""
    shown = list(visible(tags))
    if not rules:
        return Selection(tuple(shown), {})
    moment, chosen_by, too_young = now or datetime.now(UTC), dict[str, int](), dict[str, str]()
    for number, rule in enumerate(rules, 1):
        chosen, kept_out = _by(rule, shown, ages, moment)
        chosen_by = dict.fromkeys(chosen, number) | chosen_by
        too_young.update(kept_out)
    return Selection(
        tuple(tag for tag in shown if tag in chosen_by),
        {tag: reason for tag, reason in too_young.items() if tag not in chosen_by},
        chosen_by,
    )


def plain_name(pattern: str) -> str:
    """The tag that a pattern without operators names: `latest`, or `1.25`, whose dot may be escaped; empty for any
    other pattern."""
    return pattern.replace("\\.", ".") if _PLAIN.fullmatch(pattern) else ""


def names_alone(rules: Sequence[TagRule]) -> list[str]:
    """The tags that rules of nothing but plain names name, so that no list is needed; empty for other rules."""
    if not rules or any(rule.latest or not rule.allow or not all(map(plain_name, rule.allow)) for rule in rules):
        return []
    return list(dict.fromkeys(plain_name(pattern) for rule in rules for pattern in rule.allow))


def required(rules: Sequence[TagRule]) -> list[str]:
    """The tags that must be at the source: plain names of rules that take them and aren't optional."""
    return [
        name
        for rule in rules
        if not (rule.optional or rule.latest)
        for name in map(plain_name, rule.allow)
        if name and not _refusal(rule, name)
    ]


def visible(tags: Iterable[str]) -> Iterator[str]:
    """Without the tags that tools keep for themselves."""
    return (tag for tag in tags if not tagnames.is_internal(tag) and not _ATTACHED.fullmatch(tag))


def named(tags: Iterable[str], rules: Sequence[TagRule]) -> list[str]:
    """The tags that names and versions alone don't keep out: no other can be selected."""
    shown = list(visible(tags))
    if not rules:
        return shown
    candidates = {tag for rule in rules for tag in _candidates(rule, shown)}
    return [tag for tag in shown if tag in candidates]


def _candidates(rule: TagRule, tags: Sequence[str]) -> list[str]:
    """What the rule takes as far as names say, the latest ones included where no image has to be asked for them."""
    candidates = [tag for tag in tags if not _refusal(rule, tag)]
    if rule.latest and rule.latest_by is LatestBy.SEMVER:
        candidates = _newest_first(rule, candidates)
        if not rule.needs_ages:
            candidates = [tag for group in _by_variant(rule, candidates) for tag in group[: rule.latest]]
    return candidates


def _refusal(rule: TagRule, tag: str) -> str:
    """The part of a rule that keeps a tag out by its name, or nothing."""
    if rule.allow and not any(
        name == tag if (name := plain_name(pattern)) else matches(tag, (pattern,)) for pattern in rule.allow
    ):
        return "allow doesn't have it"
    if matches(tag, rule.deny):
        return "deny"
    if not rule.semver and not (rule.latest and rule.latest_by is LatestBy.SEMVER):
        return ""
    version = read_version(tag, rule.variants)
    if version is None:
        return "it is no version"
    if in_ranges(version.version, rule.semver, prereleases=rule.prereleases, counter=version.counter):
        return ""
    return "semver doesn't have it" if not version.version.prerelease or rule.prereleases else "it is a prerelease"


def _newest_first(rule: TagRule, tags: Iterable[str]) -> list[str]:
    """By version and build; of two names of one version the longer says more."""
    versions = {tag: version for tag in tags if (version := read_version(tag, rule.variants)) is not None}
    return sorted(versions, key=lambda tag: (versions[tag].order, len(tag), tag), reverse=True)


def _by_variant(rule: TagRule, tags: Iterable[str]) -> Iterable[list[str]]:
    """The tags in groups of one variant, in their order."""
    groups: dict[str, list[str]] = {}
    for tag in tags:
        version = read_version(tag, rule.variants) if rule.variants else None
        groups.setdefault(version.variant if version else "", []).append(tag)
    return groups.values()


def _by(rule: TagRule, tags: Sequence[str], ages: Ages, now: datetime) -> tuple[list[str], dict[str, str]]:
    candidates = _candidates(rule, tags)
    if rule.latest and rule.latest_by is LatestBy.CREATED:
        times = ages.created(candidates)
        dated = {tag: time for tag in candidates if (time := times.get(tag)) is not None}
        candidates = sorted(dated, key=lambda tag: (dated[tag], tag), reverse=True)
    groups = _by_variant(rule, candidates) if rule.latest else [candidates]
    chosen: list[str] = []
    young: dict[str, str] = {}
    for group in groups:
        old_enough, too_young = _of_age(rule, group, ages, now) if rule.needs_ages else (group, {})
        chosen.extend(old_enough[: rule.latest or None])
        young.update(too_young)
    return chosen, young


def _of_age(rule: TagRule, candidates: Sequence[str], ages: Ages, now: datetime) -> tuple[list[str], dict[str, str]]:
    """The first ones that have the age, as many as the rule takes, and those before them that don't."""
    chosen: list[str] = []
    too_young: dict[str, str] = {}
    step = max(_STEP, rule.latest) if rule.latest else max(_STEP, len(candidates))
    for start in range(0, len(candidates), step):
        part = candidates[start : start + step]
        unknown = [tag for tag in part if not ages.in_place(tag)]
        times = ages.created(unknown) if unknown else {}
        for tag in part:
            reason = _kept_out(rule, times.get(tag), ages.first_seen(tag), now) if tag in times else ""
            if reason:
                too_young[tag] = reason
            elif not rule.latest or len(chosen) < rule.latest:
                chosen.append(tag)
        if rule.latest and len(chosen) >= rule.latest:
            break
    return chosen, too_young


def _kept_out(rule: TagRule, created: datetime | None, first_seen: datetime | None, now: datetime) -> str:
    """Why the age of an image keeps it out, or nothing. For its minimum counts when it was first seen: what an image
    says of itself is up to who made it."""
    if first_seen is not None and now - first_seen < rule.minimum_age:
        return f"first seen {_ago(now - first_seen)}, younger than {show_duration(rule.minimum_age)}"
    if created is None and first_seen is not None:
        return ""
    if created is None:
        return "its image doesn't say when it was made, and minimum_age is asked for" if rule.minimum_age else ""
    age = now - created
    if age < rule.minimum_age:
        return f"made {_ago(age)}, younger than {show_duration(rule.minimum_age)}"
    if rule.maximum_age and age > rule.maximum_age:
        return f"made {_ago(age)}, older than {show_duration(rule.maximum_age)}"
    return ""


def _ago(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours ago" if abs(hours) < 48 else f"{hours / 24:.0f} days ago"


def repositories_of(session: Session, mirror: Mirror) -> list[Mirror]:
    """A mirror of a namespace, as one for each repository that the registry's catalog lists below it, but for those
    that it writes. Raises what the catalog raises; NotFound when there is none, and InvalidInput when two of them would
    go to one destination."""
    within = mirror.source.within
    if within is None:
        return [mirror]
    prefix = f"{within.path}/" if within.path else ""
    mirrors = []
    for path in sorted(session.repositories(within.registry)):
        below = path.removeprefix(prefix)
        if path.startswith(prefix) and (not mirror.source.repositories or matches(below, mirror.source.repositories)):
            with suppress(InvalidReference):  # the catalog is the registry's word
                repository = Repository.parse(f"{within.registry}/{path}")
                if not any(each.may_be(repository) for each in mirror.destinations):  # a copy of an earlier run
                    mirrors.append(mirror.of(repository))
    if not mirrors:
        problem = f"it has no such repository, or doesn't show its catalog to this identity: {mirror.source}"
        raise NotFound(problem, side="source", store=within.registry, subject=mirror.name)
    owners: dict[str, str] = {}
    for single in mirrors:
        for name in map(str, single.destinations):
            if owners.setdefault(name, str(single.source)) != str(single.source):
                raise InvalidInput(
                    f"{owners[name]} and {single.source} would both go to {name}", hint="write {path} there"
                )
    return mirrors


def expanded(session: Session, mirrors: Iterable[Mirror]) -> list[Mirror]:
    """Mirrors of namespaces as those of their repositories. One that can't be listed stays: its comparison says why."""
    every: list[Mirror] = []
    for mirror in mirrors:
        try:
            every.extend(repositories_of(session, mirror))
        except TransshipError:
            every.append(mirror)
    return every


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
    source has nothing that its rules take, for an empty list is more likely a mistake than a wish."""
    keep, moment = Keep(), now or datetime.now(UTC)
    for mirror in mirrors_to(config, name):
        reference = mirror.source.reference
        if mirror.source.lock:
            keep = keep.and_also(Keep(locks=(mirror.source.lock,)))
        elif reference is not None:
            named = {"digests": (reference.digest,)} if reference.digest else {"tags": (reference.tag,)}
            keep = keep.and_also(Keep(**named, optional=(reference.digest or reference.tag,)))
        else:
            with open_mirror(mirror) as session:
                for part in repositories_of(session, mirror):
                    if part.source.store is not None and any(each.store == name for each in part.destinations):
                        tags = _tags_to_keep(
                            session, part, part.source.store, vanished_at=name if vanished else None, now=moment
                        )
                        keep = keep.and_also(Keep(tags=tuple(tags), optional=tuple(tags)))
    return keep


def mirrors_to(config: MirrorsConfig, name: StoreName) -> list[Mirror]:
    """Raises InvalidInput when there is none."""
    mirrors = [mirror for mirror in config.mirrors if any(each.may_be(name) for each in mirror.destinations)]
    if not mirrors:
        raise InvalidInput(f"no mirror goes to {name}", hint="name a destination of the mirrors, or what to keep")
    return mirrors


def _tags_to_keep(
    session: Session, mirror: Mirror, store: StoreName, *, vanished_at: StoreName | None, now: datetime
) -> list[str]:
    """With a destination in `vanished_at`, also what it has and the source has no longer."""
    source = session.source(store)
    source_tags = [tag for tag in source.tags() if not matches(tag, mirror.never)]
    ages = SourceAges(session, source)
    ageless = [rule.with_(minimum_age=timedelta()) for rule in mirror.tags]
    # A tag that is too young yet isn't taken, but where it is already it may stay.
    kept_tags = {tag for rules in (mirror.tags, ageless) for tag in select(source_tags, rules, ages, now).tags}
    if not kept_tags:
        raise Refused(
            f"its rules take none of the {len(source_tags)} tags that are there",
            side="source",
            store=str(source.name),
            subject=mirror.name,
            operation="selecting what to keep",
            hint="check the source and the rules; nothing was deleted",
        )
    if vanished_at is not None:
        # Among the newest versions those count that the source has no longer: an upstream that lost its newest release
        # doesn't make room for old ones.
        with suppress(NotFound):
            both = dict.fromkeys((*source_tags, *session.destination(vanished_at).tags()))
            kept_tags |= set(named(both, mirror.tags)) - set(source_tags)
    return sorted(kept_tags)


class SourceAges(Ages):
    """Of images at the source; what is in place somewhere is asked for as well."""

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        self._source = source
        self._facts = DigestCache()
        self._dates: dict[str, datetime | None] = {}

    def created(self, tags: Sequence[str]) -> Mapping[str, datetime | None]:
        unread = [tag for tag in tags if tag not in self._dates]
        self._dates.update(zip(unread, self._session.workers.map(self._created, unread), strict=True))
        return {tag: self._dates[tag] for tag in tags}

    def _created(self, tag: str) -> datetime | None:
        descriptor = self._source.head_manifest(tag)
        return self._facts.created(self._session, self._source, descriptor.digest) if descriptor else None
