"""What a destination has, as far as it can be known: every tag, what it shows, and all that this lists in turn.

Registries have no list of manifests. What carries no tag is known only when something with a tag leads to it: an index,
a bundle, a list of referrers, or a tag that has the digest in its name (keep-alive tags, signatures).

Since when things have been unwanted stands in a note that the destination itself carries, under a tag of its own. It
serves two ends. A prune that broke off has deleted an index and not yet its children, which carry no tag: then only
the note knows of them. And a grace period must outlive the process that counts it. The destination is what all of them
share, whether a command, a flow or another machine prunes it, and a note that is lost with its repository is lost with
what it spoke of. When something was made or pushed says nothing: an old image may have become unwanted a minute ago.
Two runs at once may overwrite each other's note. Then something counts as unwanted from a later time on, never from an
earlier one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from oci.bundle import image as bundle_image
from oci.bundle import tagnames
from oci.bundle.lockfile import pinned_by
from oci.descriptor import SCHEMA1_TYPES, Descriptor, parse_json
from oci.digest import Digest, digest_of
from oci.errors import (
    Denied,
    IntegrityError,
    InvalidDocument,
    InvalidInput,
    NotFound,
    Refused,
    StoreError,
    Unauthorized,
)
from oci.manifest import Manifest, artifact_manifest
from oci.reference import is_tag
from oci.relocation.session import Session
from oci.store import Destination, push_artifact

T = TypeVar("T")
R = TypeVar("R")

NOTE_TAG = f"transship-unwanted{tagnames.KEEP_ALIVE_SUFFIX}"
"""Hidden in lists of tags, like others that tools make for themselves, and taken by no mirror."""
NOTE_TYPE = "application/vnd.transship.unwanted.v1+json"
NOTE_LAYER = "application/json"
_NOTE_LIMIT = 32 << 20

_LEAVES = (*SCHEMA1_TYPES, "application/vnd.oci.artifact.manifest.v1+json")
"""Manifests that can't be read here, and are known to list no other manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedManifest:
    """One manifest of the destination. `lists` are the manifests that it needs."""

    digest: Digest
    size: int
    lists: tuple[Digest, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Digest | None = None
    """What it refers to, and is worth nothing without."""
    is_index: bool = False
    is_bundle: bool = False
    unreadable: str = ""
    """Why it can't be known what it lists."""


class Survey:
    """Looks at one destination, at each manifest once. Raises what the store does: a part of a list is no list."""

    def __init__(self, session: Session, destination: Destination) -> None:
        self._session = session
        self._store = destination
        self._locations: frozenset[str] = frozenset()
        self.tags: dict[str, Digest] = {}
        """Every tag, and the digest it shows."""
        self.manifests: dict[Digest, SurveyedManifest] = {}
        """Those that were read."""
        self.referrers: dict[Digest, tuple[Digest, ...]] = {}
        """By subject, where the registry was asked."""
        self.absent: set[Digest] = set()
        """Listed by something, and not here."""
        self.has_note = False
        """Is there a note of what is unwanted?"""
        self.referrers_denied = ""
        """Why nothing is known of referrers; empty otherwise. Artifactory denies what it has no API for."""
        self.unaskable: list[str] = []
        """Listed names that no request may have; what they show can't be asked."""
        self.dangling: list[str] = []
        """Tags that the registry lists and that show nothing."""

    def look(self) -> None:
        """Reads every tag, what it shows, and what is in a tag's name.

        A keep-alive tag isn't asked what it shows when the digest in its name is here: the answer would be the same.
        """
        listed = self.listed()
        names = [tag for tag in listed if tag != NOTE_TAG]
        self.has_note = len(names) < len(listed)
        self._locations = frozenset(tag for tag in names if tag.endswith(tagnames.LOCATIONS_SUFFIX))
        self._show([tag for tag in names if not tagnames.is_keep_alive(tag)])
        # index.json of a layout lists without a name: referrers, and what other tools put there.
        unnamed = self._store.listed()
        note = self._store.head_manifest(NOTE_TAG) if unnamed and self.has_note else None
        digests = [digest for digest in unnamed if note is None or digest != note.digest]
        self.read((*filter(None, map(tagnames.digest_named, names)), *digests))
        silent = {tag: tagnames.digest_named(tag) for tag in names if tagnames.is_keep_alive(tag)}
        here = {tag: digest for tag, digest in silent.items() if digest and digest in self.manifests}
        self.tags.update(here)
        self._show([tag for tag in silent if tag not in here])

    def listed(self) -> list[str]:
        """Returns every tag that the store names. A registry's list isn't believed to be whole because a Link is
        missing."""
        names = list(self._store.all_tags())
        self.unaskable = [name for name in names if not is_tag(name)]
        return [name for name in names if is_tag(name)]

    def check_listed(self, tags: Collection[str]) -> None:
        """Asks for exact names that the list hasn't. Raises Refused when one exists: then the list isn't whole, and
        other tags may be missing from it as well."""
        unlisted = [tag for tag in tags if tag not in self.tags and tag not in self.dangling]
        for tag, shown in zip(unlisted, self._each(self._store.head_manifest, unlisted), strict=True):
            if shown is not None:
                raise Refused(
                    f"the registry has the tag {tag}, and its list of tags hasn't: the list isn't whole",
                    side="destination",
                    store=str(self._store.name),
                    subject=tag,
                    operation="listing the tags",
                    hint="nothing can be pruned here: what isn't listed would be deleted with the digest it shows",
                )

    def confirm(self, tags: Iterable[str]) -> None:
        """Asks what keep-alive tags show of which more depends than the manifest that they name."""
        self._show([tag for tag in tags if tagnames.is_keep_alive(tag)])

    def read(self, digests: Iterable[Digest]) -> None:
        """Looks at manifests by digest, but for those that were looked at before."""
        unread = [each for each in dict.fromkeys(digests) if each not in self.manifests and each not in self.absent]
        for digest, manifest in zip(unread, self._each(self._read, unread), strict=True):
            if manifest is None:
                self.absent.add(digest)
            else:
                self.manifests[digest] = manifest

    def ask_referrers(self, subjects: Collection[Digest]) -> None:
        """Where the registry has the API. Elsewhere a list of referrers is an index under a tag, and seen already; in a
        layout each referrer is listed."""
        pending = [digest for digest in subjects if digest not in self.referrers]
        store = self._store
        if not pending or store.has_referrers_api is False or self.referrers_denied:
            return
        first, *further = pending
        try:
            answers = [store.all_referrers(first)]  # one alone finds out whether there is the API
        except (Denied, Unauthorized) as error:
            if store.has_referrers_api:
                raise
            self.referrers_denied = error.message
            return
        if store.has_referrers_api:
            answers.extend(self._each(store.all_referrers, further))
        for subject, referrers in zip(pending, answers, strict=False):
            self.referrers[subject] = tuple(referrer.digest for referrer in referrers)

    def _show(self, tags: list[str]) -> None:
        for tag, manifest in zip(tags, self._each(self._read, tags), strict=True):
            if manifest is None:
                self.dangling.append(tag)
            else:
                self.tags[tag] = manifest.digest
                self.manifests.setdefault(manifest.digest, manifest)

    def _each(self, function: Callable[[T], R], values: list[T]) -> list[R]:
        """In as many threads as the session has; the first error ends it all."""
        self._session.cancel.check()
        return list(self._session.workers.map(function, values))

    def _read(self, identifier: str) -> SurveyedManifest | None:
        """By tag or digest; None when there is no such manifest."""
        try:
            manifest = self._store.get_manifest(identifier)
        except NotFound:
            return None
        except (InvalidInput, IntegrityError) as error:
            descriptor = self._store.head_manifest(identifier)
            if descriptor is None:
                return None
            reason = "" if descriptor.media_type in _LEAVES else str(error)
            return SurveyedManifest(digest=descriptor.digest, size=descriptor.size, unreadable=reason)
        return self._opened(manifest)

    def _opened(self, manifest: Manifest) -> SurveyedManifest:
        listed: tuple[Digest, ...] = ()
        is_bundle, reason = False, ""
        if not manifest.is_index:
            try:
                is_bundle = bundle_image.is_bundle(self._store, manifest, self._session.read_small)
                listed = self._listed(manifest) if is_bundle else ()
            except (InvalidInput, IntegrityError, NotFound) as error:
                reason = str(error)
        return SurveyedManifest(
            digest=manifest.digest,
            size=manifest.size,
            lists=tuple(dict.fromkeys((*(child.digest for child in manifest.children), *listed))),
            blobs=(*manifest.blobs, *manifest.child_blobs),
            subject=manifest.subject.digest if manifest.subject else None,
            is_index=manifest.is_index,
            is_bundle=is_bundle,
            unreadable=reason,
        )

    def _listed(self, bundle: Manifest) -> tuple[Digest, ...]:
        """Returns what the lock of a bundle pins, and its locations name beside that."""
        lock = bundle_image.read_images_lock(self._store, bundle, self._session.read_small)
        pinned: list[Digest | None] = [*pinned_by(lock)]
        if tagnames.locations(bundle.digest) in self._locations:
            locations = bundle_image.read_locations(self._store, bundle.digest, self._session.read_small)
            pinned.extend(image.image.digest for image in (locations.images if locations else ()))
        return tuple(dict.fromkeys(digest for digest in pinned if digest))


# The note.


def note_key(tag: str, digest: Digest) -> str:
    """A tag that moved is another thing."""
    return f"{tag}@{digest}"


def read_note(destination: Destination) -> dict[str, datetime]:
    """Empty where there is no note. Raises InvalidDocument for one that can't be read."""
    try:
        manifest = destination.get_manifest(NOTE_TAG)
    except NotFound:
        return {}
    where = f"{destination.name}:{NOTE_TAG}"
    if manifest.artifact_type != NOTE_TYPE or len(manifest.layers) != 1 or manifest.layers[0].size > _NOTE_LIMIT:
        raise InvalidDocument(f"{where} is no note of what is unwanted", hint="delete it, and grace periods begin anew")
    data = b"".join(destination.read_blob(manifest.layers[0]))
    try:
        since = {str(key): datetime.fromisoformat(when) for key, when in parse_json(data)["since"].items()}
        return {key: when.astimezone(UTC) for key, when in since.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidDocument(f"{where}: {error}", hint="delete it, and grace periods begin anew") from error


def write_note(destination: Destination, since: Mapping[str, datetime]) -> None:
    """Replaces the note; one that says the same stays untouched, and one that would say nothing is deleted."""
    body = {"since": {key: when.astimezone(UTC).isoformat() for key, when in sorted(since.items())}}
    data = json.dumps(body, indent=0).encode()
    manifest = artifact_manifest(NOTE_TYPE, NOTE_LAYER, data)
    before = destination.head_manifest(NOTE_TAG)
    if before is not None and before.digest == manifest.digest:
        return
    if since:
        push_artifact(destination, manifest, data, NOTE_TAG)
    if before is not None:
        with suppress(StoreError):  # an old note is a few bytes that nothing reads
            blobs = destination.get_manifest(before.digest).blobs
            destination.delete_manifest(before.digest)
            destination.sweep({blob.digest for blob in blobs})


# What may be deleted.

_UNSUPPORTED = frozenset({400, 405, 501})


def check_deletes(destination: Destination) -> None:
    """Asks the store to delete a manifest that never existed: a registry that deletes answers that there is none.

    Raises Refused where deletions are switched off, and Denied or Unauthorized for an identity that may not delete.
    """
    try:
        destination.delete_manifest(digest_of(secrets.token_bytes(32)))
    except NotFound:
        return
    except StoreError as error:
        if not _is_unsupported(error):
            error.operation, error.subject = "trying whether manifests can be deleted", ""  # the digest is made up
            raise
        raise Refused(
            f"this registry doesn't delete: {error.message}",
            side=error.side,
            store=error.store,
            operation="pruning",
            status=error.status,
            code=error.code,
            hint="nothing was deleted; switch deletions on (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        ) from error


def _is_unsupported(error: StoreError) -> bool:
    return error.status in _UNSUPPORTED or error.code == "UNSUPPORTED"


def _probe_tag() -> str:
    """Returns the name of a tag that nothing has, and that tag lists take for a tool's own."""
    return f"transship-probe-{secrets.token_hex(8)}{tagnames.KEEP_ALIVE_SUFFIX}"


def check_tag_deletes(destination: Destination) -> str:
    """Says that the store deletes no tags, in its words; empty where it may. Asked for a tag that never existed: what
    `check_untags` makes would stay in a store that deletes nothing."""
    try:
        destination.delete_tag(_probe_tag())
    except StoreError as error:
        return error.message if _is_unsupported(error) else ""
    return ""


def check_untags(destination: Destination) -> str:
    """Says why the store can't take a tag away alone; empty when it can. Tried with a manifest and a tag that are made
    for it, never with one in use: some registries delete the manifest, and all its tags, with the tag.

    What is made is deleted again, as far as the store lets it be.
    """
    if not destination.name.registry:  # a layout folder names a manifest in one file, and nothing else does
        return ""
    tag = _probe_tag()
    data = secrets.token_hex(16).encode()
    probe = artifact_manifest(NOTE_TYPE, NOTE_LAYER, data)
    try:
        push_artifact(destination, probe, data, tag)
    except StoreError as error:
        return f"whether it can be done couldn't be tried with a manifest made for it: {error.message}"
    try:
        destination.delete_tag(tag)
        if destination.head_manifest(tag) is not None:
            return "the registry says that it has deleted a tag, and the tag is there still"
        if destination.head_manifest(probe.digest) is None:
            return "the registry deletes the manifest together with its tag"
    except StoreError as error:
        return error.message  # without the hint: to delete the manifest instead is just what must not happen here
    finally:
        with suppress(StoreError):
            destination.delete_manifest(probe.digest)
    return ""
