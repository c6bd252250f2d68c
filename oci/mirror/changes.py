"""From what a comparison found to the work that follows: an item for each image, for tags that show the same one travel
together, and one for each archive, which is written as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from oci.digest import Digest
from oci.mirror.archives import has_to_be_written
from oci.mirror.comparison import DestinationComparison, TagState
from oci.mirror.config import Mirror
from oci.mirror.work import ARCHIVE, BUNDLE, TAGS, Target, WorkItem
from oci.reference import ARCHIVE_PREFIX, Reference

_MOVED = (TagState.MISSING, TagState.STALE)


def changes(
    mirror: Mirror,
    found: Iterable[DestinationComparison],
    digests: Mapping[str, Digest],
    fresh: Collection[str],
    *,
    archives: bool,
) -> list[WorkItem]:
    """`digests` is what each tag shows at the source; `fresh` are destinations without any tag. Without `archives`,
    when only some tags were looked at, no archive is written."""
    moving: dict[Digest, dict[str, list[str]]] = {}
    whole = []
    for one in found:
        if one.destination.startswith(ARCHIVE_PREFIX):
            whole.extend([_archive(mirror, one, digests)] if archives and has_to_be_written(one) else [])
            continue
        for tag in one.tags:
            if tag.state in _MOVED and tag.tag in digests:
                moving.setdefault(digests[tag.tag], {}).setdefault(one.destination, []).append(tag.tag)
    return [*(_image(mirror, digest, tags_of, fresh) for digest, tags_of in moving.items()), *whole]


def name_of(mirror: Mirror, tag: str) -> str:
    """What a tag of the source is called in lists of what failed; a bundle is called as it stands in the file."""
    reference = mirror.source.reference
    return str(reference) if reference is not None else f"{mirror.source.store}:{tag}"


def _image(mirror: Mirror, digest: Digest, tags_of: Mapping[str, Sequence[str]], fresh: Collection[str]) -> WorkItem:
    every = dict.fromkeys(tag for tags in tags_of.values() for tag in tags)
    targets = (
        Target(destination=name, tags=_named(mirror, tags), fresh=name in fresh) for name, tags in tags_of.items()
    )
    return WorkItem.of(
        mirror,
        BUNDLE if mirror.source.bundle else TAGS,
        _pinned(mirror, digest),
        names=tuple(dict.fromkeys(name_of(mirror, tag) for tag in every)),
        targets=tuple(targets),
    )


def _archive(mirror: Mirror, found: DestinationComparison, digests: Mapping[str, Digest]) -> WorkItem:
    """All that is selected, whatever of it changed."""
    names = (str(mirror.source),)
    tags: dict[Digest, list[str]] = {}
    for one in found.tags:
        tags.setdefault(digests[one.tag], []).append(one.tag)
    every = [one.tag for one in found.tags]
    target = Target(destination=found.destination, tags=_named(mirror, every))
    if mirror.source.bundle:
        [digest] = tags
        return WorkItem.of(mirror, BUNDLE, _pinned(mirror, digest), names=names, targets=(target,))
    item = WorkItem.of(mirror, ARCHIVE, found.destination, names=names, targets=(target,))
    return replace(item, contents=tuple((_pinned(mirror, digest), tuple(ones)) for digest, ones in tags.items()))


def _named(mirror: Mirror, tags: Sequence[str]) -> tuple[str, ...]:
    """A bundle that is named by its digest has no tag to give on."""
    reference = mirror.source.reference
    return () if reference is not None and reference.digest else tuple(tags)


def _pinned(mirror: Mirror, digest: Digest) -> str:
    store = mirror.source.store
    return str(Reference(store, "", digest)) if store is not None else mirror.source.lock
