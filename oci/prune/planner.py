"""From a policy to a plan: what the destination has beyond it. Nothing is deleted or written here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from oci.bundle import tagnames
from oci.bundle.describe import DescribedBundle, describe
from oci.bundle.lockfile import BundleLock, read_lock
from oci.descriptor import CONFIG_TYPES
from oci.digest import Digest, is_digest
from oci.errors import InvalidInput, Refused
from oci.prune import grace as note
from oci.prune.keep import Keep
from oci.prune.plan import PrunePlan, UnwantedManifest, UnwantedTag
from oci.prune.references import References, order
from oci.prune.survey import Survey, SurveyedManifest, Surveyor
from oci.reference import ArchiveName, StoreName, parse_any
from oci.relocation.session import Session
from oci.store import Destination

NO_GRACE = timedelta(0)

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
    _check(name, keep)
    destination = session.destination(name)
    resolved = _resolved(session, destination, keep)
    surveyor = Surveyor(session, destination)
    survey = surveyor.look()
    surveyor.check_listed([tag for tag in resolved.tags if tag not in resolved.optional])
    noted = note.read(destination) if survey.has_note else {}
    surveyor.read((*note.noted_manifests(noted), *extra, *resolved.digests))
    chosen = resolved.chosen(survey.tags)
    surveyor.confirm(chosen)
    references = References(surveyor, chosen & survey.tags.keys(), resolved.digests)
    _check_readable(destination, references)
    unwanted = references.unwanted
    if unwanted and not resolved.nothing and not survey.manifests.keys() & references.needed.keys():
        raise InvalidInput(
            f"the policy keeps nothing of what is in {name}",
            hint="correct it, or say on purpose that nothing is to be kept",
        )
    _check_present(name, resolved, survey)
    clock = _Clock(noted, grace, now or datetime.now(UTC))
    manifests = _manifests(survey, unwanted, clock)
    empty = sorted(resolved.chosen((*survey.tags, *survey.dangling)) & set(survey.dangling))
    plan = PrunePlan(
        destination=str(name),
        keep=resolved,
        grace=grace,
        made=clock.now,
        manifests=manifests,
        tags=_tags(references, clock),
        tags_seen=len(survey.tags),
        manifests_kept=len(survey.manifests) - len(unwanted),
        warnings=tuple(_warnings(resolved, survey)),
        unknown=tuple(_unknown(name, keep, empty, survey)) if any(manifest.due for manifest in manifests) else (),
    )
    kept_tags = {tag: digest for tag, digest in survey.tags.items() if _may_move(tag, references)}
    return plan, {*survey.tags, *survey.dangling, note.TAG}, {**kept_tags, **dict.fromkeys(empty)}


def remember(
    session: Session, name: StoreName, plan: PrunePlan, *, gone: Collection[Digest] = (), untagged: Collection[str] = ()
) -> None:
    """Writes into the destination since when the things of the plan are unwanted, but for those that are `gone`."""
    since: dict[str, datetime] = {}
    for manifest in plan.manifests:
        if manifest.digest not in gone:
            since.update(dict.fromkeys(_keys(manifest.digest, manifest.tags), manifest.since))
    since.update({note.tag_key(tag.tag, tag.digest): tag.since for tag in plan.tags if tag.tag not in untagged})
    note.write(session.destination(name), since)


def _resolved(session: Session, destination: Destination, keep: Keep) -> Keep:
    """Returns the policy with the digests that its locks and bundles pin instead of their names. Raises NotFound,
    Denied, InvalidDocument, or InvalidInput for what is no bundle."""
    bundles = list(map(parse_any, keep.bundles))
    pinned: list[Digest] = []
    for path in keep.locks:
        lock = read_lock(path)
        images = [lock.image] if isinstance(lock, BundleLock) else [image.image for image in lock.images]
        pinned.extend(image.digest for image in images if image.digest)
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


def _check(name: StoreName, keep: Keep) -> None:
    if isinstance(name, ArchiveName):
        raise InvalidInput(f"{name}: nothing can be taken out of an archive", hint="write a new one")
    if keep.is_empty and not keep.nothing:
        raise InvalidInput(
            "the policy is empty: everything would be deleted",
            hint="say what to keep (--keep-tag, --keep-latest ...), or that it is nothing (--keep-nothing)",
        )


def _check_readable(destination: Destination, references: References) -> None:
    for digest, why in references.needed.items():
        manifest = references.survey.manifests.get(digest)
        if manifest is not None and manifest.unreadable:
            raise Refused(
                f"it is kept ({why}), and what it lists can't be read: {manifest.unreadable}",
                side="destination",
                store=str(destination.name),
                subject=digest,
                operation="counting references",
                hint="nothing is pruned before that is mended: copy it again with --repair",
            )


def _check_present(name: StoreName, keep: Keep, survey: Survey) -> None:
    """A name that is misspelled keeps nothing, and what it was to keep would be deleted."""
    missing = [name for name in keep.required if name not in survey.tags and name not in survey.manifests]
    if missing:
        raise InvalidInput(
            f"{len(missing)} of {len(keep.required)} tags and digests that the policy names aren't in {name}, "
            f"such as {missing[0]}",
            hint="correct the names, or keep them by a pattern, which may match nothing; nothing was deleted",
        )


class _Clock:
    """Since when something is unwanted, and whether that is long enough."""

    def __init__(self, noted: Mapping[str, datetime], grace: timedelta, now: datetime) -> None:
        self.now = now
        self._grace = grace
        self._since = noted

    def since(self, keys: Iterable[str]) -> datetime:
        """Returns the latest of all, for with a new tag it is unwanted anew; what no note has is seen now. A note from
        the future, by a clock that is wrong, counts from now."""
        return min(self.now, max(self._since.get(key, self.now) for key in keys))

    def is_due(self, since: datetime) -> bool:
        return self.now - since >= self._grace


def _keys(digest: Digest, tags: Iterable[str]) -> list[str]:
    return [digest, *(note.tag_key(tag, digest) for tag in tags)]


def _manifests(survey: Survey, unwanted: Collection[Digest], clock: _Clock) -> tuple[UnwantedManifest, ...]:
    tags = _tags_by_digest(survey)
    going = set(unwanted)
    used = {
        blob.digest for digest, manifest in survey.manifests.items() if digest not in going for blob in manifest.blobs
    }
    planned: dict[Digest, UnwantedManifest] = {}
    for digest, after in order(survey, unwanted).items():
        manifest = survey.manifests[digest]
        since = clock.since(_keys(digest, tags.get(digest, ())))
        freed = (blob for blob in manifest.blobs if blob.distributable and not blob.urls and blob.digest not in used)
        planned[digest] = UnwantedManifest(
            digest=digest,
            kind=_kind(manifest, tags.get(digest, ())),
            size=manifest.size,
            blobs=tuple((blob.digest, blob.size) for blob in freed),
            tags=tuple(tags.get(digest, ())),
            after=after,
            since=since,
            due=clock.is_due(since) and all(planned[digest_before].due for digest_before in after),
        )
    return tuple(planned.values())


def _tags_by_digest(survey: Survey) -> dict[Digest, list[str]]:
    tags: dict[Digest, list[str]] = {}
    for tag, shown in sorted(survey.tags.items()):
        tags.setdefault(shown, []).append(tag)
    return tags


def _kind(manifest: SurveyedManifest, tags: Iterable[str]) -> str:
    if any(tagnames.attached_to(tag) not in ("", tagnames.referrers(manifest.digest)) for tag in tags):
        return "attachment"
    if manifest.is_index or manifest.is_bundle:
        return "index" if manifest.is_index else "bundle"
    is_image = any(blob.media_type in CONFIG_TYPES for blob in manifest.blobs) and manifest.subject is None
    return "image" if is_image else "artifact"


def _tags(references: References, clock: _Clock) -> tuple[UnwantedTag, ...]:
    unwanted = []
    by_digest = _tags_by_digest(references.survey)
    for tag, digest in sorted(references.survey.tags.items()):
        if digest in references.needed and not references.keeps_tag(tag):
            since = clock.since([note.tag_key(tag, digest)])
            unwanted.append(
                UnwantedTag(
                    tag=tag,
                    digest=digest,
                    because=references.needed[digest],
                    others=tuple(other for other in by_digest[digest] if references.keeps_tag(other)),
                    since=since,
                    due=clock.is_due(since),
                )
            )
    return tuple(unwanted)


def _warnings(keep: Keep, survey: Survey) -> Iterator[str]:
    for noun, named, here in (("tags", keep.tags, survey.tags), ("digests", keep.digests, survey.manifests)):
        missing = [name for name in named if name not in here]
        if missing:
            yield f"{len(missing)} of {len(named)} {noun} that the policy keeps aren't there, such as {missing[0]}"
    for tag in sorted(survey.dangling):
        yield f"the tag {tag} is listed and shows nothing"


def _may_move(tag: str, references: References) -> bool:
    """Says whether a tag keeps something that isn't in its name: what the policy names, a signature, locations."""
    return tag in references.tags or (references.keeps_tag(tag) and not tagnames.is_keep_alive(tag))


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
