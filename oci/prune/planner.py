"""From a policy to a plan: what the destination has beyond it. Nothing is deleted or written here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import msgspec

from oci.bundle import tagnames
from oci.bundle.describe import DescribedBundle, describe
from oci.bundle.lockfile import BundleLock, pinned_by, read_lock
from oci.descriptor import CONFIG_TYPES
from oci.digest import Digest, is_digest, parse_digest
from oci.errors import InvalidInput, Refused
from oci.prune.plan import PrunePlan, UnwantedManifest, UnwantedTag
from oci.prune.policy import Keep
from oci.prune.survey import NOTE_TAG, Survey, SurveyedManifest, note_key, read_note, write_note
from oci.reference import ArchiveName, StoreName, parse_any
from oci.relocation.session import Session
from oci.store import Destination

NO_GRACE = timedelta(0)

Age: TypeAlias = Callable[[Iterable[str]], tuple[datetime, bool]]
"""Says of the keys that something has in the note since when it is unwanted, and whether that is long enough."""

_UNKNOWN_BUNDLES = (
    "bundles in other repositories may list images of this one, and this can't be seen here: "
    "name such bundles or locks as kept (--keep-bundle, --keep-lock)"
)
_UNKNOWN_PUSHES = (
    "what is pushed or tagged between the look before the deletions and a deletion can't be seen: "
    "don't fill the repository meanwhile"
)


def make_prune_plan(
    session: Session,
    name: StoreName,
    keep: Keep,
    *,
    grace: timedelta = NO_GRACE,
    now: datetime | None = None,
) -> PrunePlan:
    """Returns what `name` has that `keep` doesn't want and that nothing kept needs; with `grace`, since when.

    Raises InvalidInput for a policy that keeps nothing of what is there, unless it allows that, or that names tags and
    digests that aren't there; Refused when it can't be known what a kept manifest lists, or when the list of tags isn't
    whole; and whatever the store, a lock or a bundle raises: a list that can't be read in full is never taken for a
    short one.
    """
    return look(session, name, keep, grace=grace, now=now)[0]


def look(
    session: Session,
    name: StoreName,
    keep: Keep,
    *,
    grace: timedelta,
    now: datetime | None = None,
    extra: Iterable[Digest] = (),
) -> tuple[PrunePlan, Collection[str], Mapping[str, Digest | None]]:
    """As `make_prune_plan`, with all tags that were listed, and what those of them show that are kept: None for one
    that shows nothing. `extra` are manifests to look at even if no tag or list leads to them any more."""
    if isinstance(name, ArchiveName):
        raise InvalidInput(f"{name}: nothing can be taken out of an archive", hint="write a new one")
    if keep.is_empty and not keep.nothing:
        raise InvalidInput(
            "the policy is empty: everything would be deleted",
            hint="say what to keep (--keep-tag, --keep-latest ...), or that it is nothing (--keep-nothing)",
        )
    destination = session.destination(name)
    resolved = _resolved(session, destination, keep)
    survey = Survey(session, destination)
    survey.look()
    survey.check_listed([tag for tag in resolved.tags if tag not in resolved.optional])
    noted = read_note(destination) if survey.has_note else {}
    survey.read((*(parse_digest(key) for key in noted if is_digest(key)), *extra, *resolved.digests))
    chosen = resolved.chosen(survey.tags)
    survey.confirm(chosen)
    named = chosen & survey.tags.keys()
    needed = _needed(survey, named, resolved.digests)
    _check_readable(destination, survey, needed)
    unwanted = sorted(survey.manifests.keys() - needed.keys())
    if unwanted and not resolved.nothing and not survey.manifests.keys() & needed.keys():
        raise InvalidInput(
            f"the policy keeps nothing of what is in {name}",
            hint="correct it, or say on purpose that nothing is to be kept",
        )
    if missing := [key for key in resolved.required if key not in survey.tags and key not in survey.manifests]:
        # A name that is misspelled keeps nothing, and what it was to keep would be deleted.
        raise InvalidInput(
            f"{len(missing)} of {len(resolved.required)} tags and digests that the policy names aren't in {name}, "
            f"such as {missing[0]}",
            hint="correct the names, or keep them by a pattern, which may match nothing; nothing was deleted",
        )
    moment = now or datetime.now(UTC)

    def age(keys: Iterable[str]) -> tuple[datetime, bool]:
        """Since when something is unwanted, the latest of all, for with a new tag it is unwanted anew, and whether that
        is long enough. What no note has is seen now. A note from the future, by a clock that is wrong, counts from
        now."""
        since = min(moment, max(noted.get(key, moment) for key in keys))
        return since, moment - since >= grace

    tags_of: dict[Digest, list[str]] = {}
    for tag, shown in sorted(survey.tags.items()):
        tags_of.setdefault(shown, []).append(tag)
    attached = set(map(tagnames.referrers, needed))
    staying = {tag for tag in survey.tags if tag in named or tagnames.attached_to(tag) in attached}
    manifests = _unwanted_manifests(survey, unwanted, tags_of, age)
    empty = sorted(resolved.chosen((*survey.tags, *survey.dangling)) & set(survey.dangling))
    plan = PrunePlan(
        destination=str(name),
        keep=resolved,
        grace=grace,
        made=moment,
        manifests=manifests,
        tags=_unwanted_tags(survey, needed, staying, tags_of, age),
        tags_seen=len(survey.tags),
        manifests_kept=len(survey.manifests) - len(unwanted),
        warnings=tuple(_warnings(resolved, survey)),
        unknown=tuple(_unknown(name, keep, empty, survey)) if any(manifest.due for manifest in manifests) else (),
    )
    # Tags that keep something which isn't in their names: what the policy names, a signature, locations.
    kept_tags = {
        tag: survey.tags[tag]
        for tag in survey.tags
        if tag in named or (tag in staying and not tagnames.is_keep_alive(tag))
    }
    return plan, {*survey.tags, *survey.dangling, NOTE_TAG}, {**kept_tags, **dict.fromkeys(empty)}


def remember(
    session: Session, name: StoreName, plan: PrunePlan, *, gone: Collection[Digest] = (), untagged: Collection[str] = ()
) -> None:
    """Writes into the destination since when the things of the plan are unwanted, but for those that are `gone`."""
    since: dict[str, datetime] = {}
    for manifest in plan.manifests:
        if manifest.digest not in gone:
            since.update(dict.fromkeys(_keys(manifest.digest, manifest.tags), manifest.since))
    since.update({note_key(tag.tag, tag.digest): tag.since for tag in plan.tags if tag.tag not in untagged})
    write_note(session.destination(name), since)


def _resolved(session: Session, destination: Destination, keep: Keep) -> Keep:
    """Returns the policy with the digests that its locks and bundles pin instead of their names. Raises NotFound,
    Denied, InvalidDocument, or InvalidInput for what is no bundle."""
    bundles = list(map(parse_any, keep.bundles))
    pinned: list[Digest] = []
    for path in keep.locks:
        lock = read_lock(path)
        pinned.extend(pinned_by(lock))
        if isinstance(lock, BundleLock) and destination.head_manifest(lock.image.identifier) is None:
            bundles.append(lock.image)  # its images may be here without it
    for bundle in bundles:
        pinned.extend(_listed(describe(session.source, bundle, session.workers, layers=False, signatures=False)))
    digests = tuple(dict.fromkeys((*keep.digests, *pinned)))
    optional = tuple(dict.fromkeys((*keep.optional, *(digest for digest in pinned if digest not in keep.digests))))
    return msgspec.structs.replace(keep, digests=digests, locks=(), bundles=(), optional=optional)


def _listed(bundle: DescribedBundle) -> Iterator[Digest]:
    yield bundle.digest
    yield from (Digest(image.key) for image in bundle.images if is_digest(image.key))
    for nested in bundle.bundles:
        yield from _listed(nested)


def _needed(survey: Survey, tags: Collection[str], digests: Iterable[Digest]) -> dict[Digest, str]:
    """Reads whatever it takes to know which manifests are needed by these tags and digests, and by which, in words."""
    roots = {**dict.fromkeys(digests, "the policy"), **{survey.tags[tag]: f"tag {tag}" for tag in sorted(tags)}}
    while True:  # each round may find something that was unknown, and what that needs; manifests are finite
        needed = _reached(survey, roots)
        before = len(survey.manifests) + len(survey.absent)
        unwanted = sorted(survey.manifests.keys() - needed.keys())
        survey.read((*needed, *(below for digest in unwanted for below in survey.manifests[digest].lists)))
        if unwanted:
            survey.ask_referrers((*needed, *unwanted))
            survey.read(referrer for referrers in survey.referrers.values() for referrer in referrers)
        if before == len(survey.manifests) + len(survey.absent):
            return needed


def _reached(survey: Survey, roots: Mapping[Digest, str]) -> dict[Digest, str]:
    """The roots and what they list, what they refer to, what is attached to them, each with the word of its root."""
    attachments = _attachments(survey)
    needed: dict[Digest, str] = {}
    pending = list(roots.items())
    while pending:
        digest, why = pending.pop()
        if digest in needed:
            continue
        needed[digest] = why
        manifest = survey.manifests.get(digest)
        if manifest is not None:
            pending.extend((below, why) for below in (*manifest.lists, *filter(None, (manifest.subject,))))
        pending.extend((attachment, why) for attachment in attachments(digest))
    return needed


def _attachments(survey: Survey) -> Callable[[Digest], list[Digest]]:
    """Finds what is attached to a digest by a tag's name or as a referrer, whether or not the digest itself is here."""
    by_name: dict[str, list[Digest]] = {}
    for tag, shown in survey.tags.items():
        if name := tagnames.attached_to(tag):
            by_name.setdefault(name, []).append(shown)
    by_subject = {subject: list(referrers) for subject, referrers in survey.referrers.items()}
    for manifest in survey.manifests.values():
        if manifest.subject:
            by_subject.setdefault(manifest.subject, []).append(manifest.digest)
    return lambda subject: [*by_name.get(tagnames.referrers(subject), ()), *by_subject.get(subject, ())]


def _check_readable(destination: Destination, survey: Survey, needed: Mapping[Digest, str]) -> None:
    for digest, why in needed.items():
        manifest = survey.manifests.get(digest)
        if manifest is not None and manifest.unreadable:
            raise Refused(
                f"it is kept ({why}), and what it lists can't be read: {manifest.unreadable}",
                side="destination",
                store=str(destination.name),
                subject=digest,
                operation="counting references",
                hint="nothing is pruned before that is mended: copy it again with --repair",
            )


def _keys(digest: Digest, tags: Iterable[str]) -> list[str]:
    return [digest, *(note_key(tag, digest) for tag in tags)]


def _unwanted_manifests(
    survey: Survey, unwanted: Collection[Digest], tags_of: Mapping[Digest, list[str]], age: Age
) -> tuple[UnwantedManifest, ...]:
    going = set(unwanted)
    used = {
        blob.digest for digest, manifest in survey.manifests.items() if digest not in going for blob in manifest.blobs
    }
    planned: dict[Digest, UnwantedManifest] = {}
    for digest, after in _order(survey, unwanted).items():
        manifest, tags = survey.manifests[digest], tags_of.get(digest, [])
        since, due = age(_keys(digest, tags))
        freed = (blob for blob in manifest.blobs if blob.distributable and not blob.urls and blob.digest not in used)
        planned[digest] = UnwantedManifest(
            digest=digest,
            kind=_kind(manifest, tags),
            size=manifest.size,
            blobs=tuple((blob.digest, blob.size) for blob in freed),
            tags=tuple(tags),
            after=after,
            since=since,
            due=due and all(planned[digest_before].due for digest_before in after),
        )
    return tuple(planned.values())


def _order(survey: Survey, digests: Collection[Digest]) -> dict[Digest, tuple[Digest, ...]]:
    """Returns the given manifests, each after those of them that list it or that it is attached to, which come with it.

    Whatever is interrupted between two of them leaves no manifest that lacks something it lists. Lists can't run in
    circles, for they are made of digests; names of tags can, and a circle of attachments is cut open.
    """
    listed: dict[Digest, set[Digest]] = {digest: set() for digest in digests}
    attached: dict[Digest, set[Digest]] = {digest: set() for digest in digests}
    attachments = _attachments(survey)
    for digest in digests:
        for below in survey.manifests[digest].lists:
            if below in listed:
                listed[below].add(digest)
        for attachment in attachments(digest):
            if attachment in attached and attachment != digest:
                attached[attachment].add(digest)
    ordered: dict[Digest, tuple[Digest, ...]] = {}
    pending = sorted(digests)
    while pending:
        free = [unplaced for unplaced in pending if not (listed[unplaced] | attached[unplaced]) - ordered.keys()]
        free = free or [unplaced for unplaced in pending if not listed[unplaced] - ordered.keys()][:1]
        ordered.update(
            {unplaced: tuple(sorted(listed[unplaced] | (attached[unplaced] & ordered.keys()))) for unplaced in free}
        )
        pending = [unplaced for unplaced in pending if unplaced not in ordered]
    return ordered


def _kind(manifest: SurveyedManifest, tags: Iterable[str]) -> str:
    if any(tagnames.attached_to(tag) not in ("", tagnames.referrers(manifest.digest)) for tag in tags):
        return "attachment"
    if manifest.is_index or manifest.is_bundle:
        return "index" if manifest.is_index else "bundle"
    is_image = any(blob.media_type in CONFIG_TYPES for blob in manifest.blobs) and manifest.subject is None
    return "image" if is_image else "artifact"


def _unwanted_tags(
    survey: Survey,
    needed: Mapping[Digest, str],
    staying: Collection[str],
    tags_of: Mapping[Digest, list[str]],
    age: Age,
) -> tuple[UnwantedTag, ...]:
    unwanted = []
    for tag, digest in sorted(survey.tags.items()):
        if digest in needed and tag not in staying:
            since, due = age([note_key(tag, digest)])
            others = tuple(other for other in tags_of[digest] if other in staying)
            unwanted.append(
                UnwantedTag(tag=tag, digest=digest, because=needed[digest], others=others, since=since, due=due)
            )
    return tuple(unwanted)


def _warnings(keep: Keep, survey: Survey) -> Iterator[str]:
    for noun, named, here in (("tags", keep.tags, survey.tags), ("digests", keep.digests, survey.manifests)):
        missing = [name for name in named if name not in here]
        if missing:
            yield f"{len(missing)} of {len(named)} {noun} that the policy keeps aren't there, such as {missing[0]}"
    for tag in sorted(survey.dangling):
        yield f"the tag {tag} is listed and shows nothing"


def _unknown(name: StoreName, keep: Keep, empty: Collection[str], survey: Survey) -> Iterator[str]:
    """`empty` are kept tags that show nothing."""
    for tag in empty:
        yield f"the tag {tag} is kept and shows nothing, so what it needs can't be seen: copy it again with --repair"
    if not name.registry:
        return
    if survey.unaskable:
        yield (
            f"{len(survey.unaskable)} listed names are no tags, such as {survey.unaskable[0][:100]!r}: what they show "
            "can't be asked, and is deleted with another tag of the same"
        )
    if survey.referrers_denied:
        yield (
            f"the registry denies the list of referrers ({survey.referrers_denied}), so what a signature or an "
            "attestation without a tag lists can't be seen: name such manifests as kept (--keep-digest)"
        )
    if not (keep.bundles or keep.locks):
        yield _UNKNOWN_BUNDLES
    yield _UNKNOWN_PUSHES
