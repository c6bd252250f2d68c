"""From the plan of a relocation to that of an archive: what is in it, in which order, in which volumes and parts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from oci.archive import index_json, manifest_json, transship_json
from oci.archive.entry import IMGPKG, ArchiveEntry
from oci.archive.open import in_object_store
from oci.archive.source import Archive
from oci.archive.transship_json import TransshipJson
from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST
from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, InvalidManifest, StoreError
from oci.export import tar_plan
from oci.export.delta import known_blobs
from oci.export.options import SMALLEST, ExportOptions
from oci.export.plan import ArchivePlan, Volume
from oci.export.tar_plan import MemberContent, PlannedMember, TarPlan, lay_out
from oci.files import tar
from oci.manifest import Manifest
from oci.reference import ArchiveName
from oci.relocation.plan import Plan, PlannedBlob, Role
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import load_manifest, small_blob
from oci.units import counted

_DIGESTS_OF_NOTHING = frozenset(f"{name}:{hashlib.new(name).hexdigest()}" for name in ("sha256", "sha512"))

CONFIG_LIMIT = 16 << 20
"""Bytes of a config that is held as text: image configs have some thousand."""


def plan_archive(
    session: Session, request: RelocationRequest, plan: Plan, options: ExportOptions | None = None
) -> ArchivePlan:
    """Reads manifests and configs that the session hasn't read yet; writes nothing.

    Raises Incomplete when a part of the source couldn't be read: an archive has everything or isn't made.
    """
    options = options or ExportOptions()
    check_whole(plan)
    destination = request.destination
    if not isinstance(destination, ArchiveName) or len(destination.locations) > 1:
        raise InvalidInput(f"{destination} is no archive that can be written", hint="name one file or object")
    loaded = session.workers.map(lambda planned: load_manifest(session, planned), plan.manifests)
    manifests = {manifest.digest: manifest for manifest in loaded}
    blobs = _blobs(plan, manifests, with_configs=options.format != IMGPKG)
    _check_sizes(plan, options)
    base_name, elsewhere = "", frozenset[Digest]()
    if options.delta_from:
        # Configs aren't even asked for: they say what is a bundle.
        configs = {manifest.config.digest for manifest in manifests.values() if manifest.config}
        layers = [blob for blob in blobs if blob.digest not in configs]
        base_name, elsewhere = known_blobs(session, options.delta_from, plan, layers)
    chosen = [blob for blob in blobs if blob.digest not in elsewhere]
    left_out = tuple((blob.digest, blob.size) for blob in blobs if blob.digest in elsewhere)
    head = _head(session, request, plan, manifests, options.format)
    note = TransshipJson(requires=left_out, base=base_name)
    if options.record:
        from oci.receipts.record import receipt_of  # noqa: PLC0415 - only where it is asked for

        note = replace(note, receipt=receipt_of(session, request, plan).render())
    tars = _tars(head, note, _members(manifests, chosen, options.format), options)
    stem, suffix = os.path.splitext(destination.location)
    names = [destination.location]
    if len(tars) > 1:
        names = [f"{stem}.vol{number:03}{suffix}" for number in range(1, len(tars) + 1)]
    return ArchivePlan(
        source=plan.source,
        format=options.format,
        volumes=tuple(_volume(session, name, tar, options) for name, tar in zip(names, tars, strict=True)),
        blobs=tuple(chosen),
        blob_count=len({digest for planned in plan.manifests for digest in planned.blobs} - elsewhere),
        images=len(list(plan.images)),
        base=options.base,
        left_out=left_out,
        docker_tags=tuple(
            sorted(
                tag
                for planned in plan.manifests
                for tag in planned.tags
                if options.format != IMGPKG and planned.media_type in (DOCKER_MANIFEST, DOCKER_LIST)
            )
        ),
    )


def check_whole(plan: Plan) -> None:
    """Raises Incomplete when a part of the source couldn't be read."""
    if plan.failures:
        failures = [
            StoreError(failed.message, side="source", subject=failed.subject, retryable=failed.retryable)
            for failed in plan.failures
        ]
        raise Incomplete(
            f"{counted(len(failures), 'image')} can't be read, and an archive has everything or isn't made",
            failures,
            hint="make the source whole, then run the same command again",
        )


def _blobs(plan: Plan, manifests: Mapping[Digest, Manifest], *, with_configs: bool) -> list[PlannedBlob]:
    """Returns what gets a member of its own, by digest: layers, what indexes list that is no manifest, perhaps
    configs."""
    digests: dict[Digest, None] = {}
    for planned in plan.manifests:
        manifest = manifests[planned.digest]
        layers = {layer.digest for layer in manifest.layers}
        config = manifest.config.digest if manifest.config else None
        digests.update(
            (digest, None) for digest in planned.blobs if with_configs or digest in layers or digest != config
        )
    return [plan.blob_by_digest[digest] for digest in sorted(digests)]


def _check_sizes(plan: Plan, options: ExportOptions) -> None:
    """A manifest may state any size, and a tarball is laid out by these sizes before a byte of a blob is read."""
    for planned in plan.manifests:
        for digest in planned.blobs:
            size = plan.blob_by_digest[digest].size if digest in plan.blob_by_digest else 0
            if size > options.max_blob_size:
                raise InvalidManifest(
                    f"{planned.subject}: the blob {digest} has {size} bytes, and {options.max_blob_size} are the limit",
                    hint="raise --max-blob-size if the image is to be trusted",
                )
            if digest in plan.blob_by_digest and not size and digest not in _DIGESTS_OF_NOTHING:
                raise InvalidManifest(
                    f"{planned.subject}: the blob {digest} is said to have 0 bytes, and that isn't their digest",
                    hint="make the image again with a current tool",
                )


def _head(
    session: Session, request: RelocationRequest, plan: Plan, manifests: Mapping[Digest, Manifest], kind: str
) -> list[MemberContent]:
    """Returns the members that say what the archive holds."""
    elements = entries_of(plan, origins=bool(request.bundle or request.archive))
    if kind == IMGPKG:
        configs = _configs(session, plan, manifests)
        return [MemberContent.of(manifest_json.NAME, manifest_json.render(elements, manifests, configs))]
    return [
        MemberContent.of(index_json.MARK, index_json.MARK_BYTES),
        MemberContent.of(index_json.INDEX, index_json.render(elements, manifests)),
    ]


def _configs(session: Session, plan: Plan, manifests: Mapping[Digest, Manifest]) -> dict[Digest, bytes]:
    configs = {manifest.config.digest: manifest.config for manifest in manifests.values() if manifest.config}
    for config in configs.values():
        if config.size > CONFIG_LIMIT:
            raise InvalidManifest(
                f"the config {config.digest} has {config.size} bytes, too many for imgpkg's format",
                hint="write an OCI-layout archive: --tar-format oci-layout",
            )
    texts = session.workers.map(lambda digest: small_blob(session, plan.blob_by_digest[digest]), configs)
    return dict(zip(configs, texts, strict=True))


def _members(manifests: Mapping[Digest, Manifest], blobs: Sequence[PlannedBlob], kind: str) -> list[MemberContent]:
    """Returns what the images are made of; a layout's manifests come first, so that they are read together."""
    if kind == IMGPKG:
        return [MemberContent(manifest_json.member_name(blob.digest), blob.size, digest=blob.digest) for blob in blobs]
    return [
        *(MemberContent.of(index_json.member_name(digest), manifests[digest].raw) for digest in sorted(manifests)),
        *(MemberContent(index_json.member_name(blob.digest), blob.size, digest=blob.digest) for blob in blobs),
    ]


def _tars(
    head: Sequence[MemberContent], note: TransshipJson, members: Sequence[MemberContent], options: ExportOptions
) -> list[TarPlan]:
    """One tarball, or as many as it takes; the note is in it only where it says something."""

    def member(note: TransshipJson) -> MemberContent:
        return MemberContent.of(transship_json.NAME, note.to_json())

    noted = [member(note)] if note.requires or note.base or note.receipt else []
    whole = lay_out(options.format, [*head, *noted, *members])
    if not options.max_size or whole.size <= options.max_size:
        return [whole]
    longest_note = member(replace(note, volume=99999, volumes=99999, whole="0" * 64))
    shares = _shares(head, members, options.max_size, _length(longest_note) + len(tar.END))
    tars = []
    for number, share in enumerate(shares, 1):
        receipt = note.receipt if number == 1 else b""
        own = replace(note, volume=number, volumes=len(shares), whole=whole.fingerprint, receipt=receipt)
        tars.append(lay_out(options.format, [*(head if number == 1 else ()), member(own), *share]))
    return tars


def _shares(
    head: Sequence[MemberContent], members: Sequence[MemberContent], limit: int, room: int
) -> list[list[MemberContent]]:
    """Returns the members of each volume, in order. `room` is what a volume needs beside them: the longest note there
    can be, and the end."""
    used = sum(map(_length, head)) + room
    if used > limit:
        raise InvalidInput(
            f"the description of the archive alone has {used} bytes, more than a volume of {limit}",
            hint="give a bigger --max-size",
        )
    shares: list[list[MemberContent]] = [[]]
    for member in members:
        length = _length(member)
        if length + room > limit:
            raise InvalidInput(
                f"a volume holds whole blobs, and {member.digest or member.name} has {member.size} bytes, "
                f"more than one of {limit}",
                hint="give a bigger --max-size",
            )
        if used + length > limit:
            shares.append([])
            used = room
        shares[-1].append(member)
        used += length
    return shares


def _length(content: MemberContent) -> int:
    return PlannedMember(content, 0, tar.header(content.name, mode=0o644, size=content.size)).end


def _volume(session: Session, location: str, plan: TarPlan, options: ExportOptions) -> Volume:
    in_store = in_object_store(location)
    parts = tar_plan.cut(
        plan,
        size=options.part_size,
        smallest=SMALLEST if in_store else 1,
        most=tar_plan.MOST_PARTS if in_store else tar_plan.MOST_PARTS_OF_A_FILE,
        base=_offsets(session.archive(ArchiveName.of(options.base), "destination"), plan) if options.base else None,
    )
    return Volume(location=location, tar=plan, parts=parts)


def _offsets(base: Archive, plan: TarPlan) -> dict[str, int]:
    """Where the older archive has the very members that are planned, header and all."""
    offsets = {}
    for member in plan.members:
        digest = member.content.digest
        stretch = base.contents.blobs.get(digest) if digest else None
        if stretch is None or stretch.size != member.content.size:
            continue
        at = stretch.offset - len(member.header)
        # A store that says that the archive is ours isn't asked: that would be a request for each member.
        if at >= 0 and (
            stretch.reader.fingerprint or b"".join(stretch.reader.read(at, len(member.header))) == member.header
        ):
            offsets[member.content.name] = at
    return offsets


def entries_of(plan: Plan, *, origins: bool) -> list[ArchiveEntry]:
    """One for each image of a plan and each of its tags. With `origins` (imgpkg: for a bundle that was named by a
    reference, not by a lock) they remember how their lock names them."""
    entries = []
    bundles = {bundle.digest for bundle in plan.bundles}
    for image in plan.images:
        attached = image.role in (Role.SIGNATURE, Role.REFERRER)
        # imgpkg parses it, so a folder or an archive is given a registry's name, one that can't exist (RFC 6761).
        reference = f"{image.store}@{image.digest}"
        if not image.store.registry:
            has_origin = image.origin is not None and image.origin.repository.registry
            reference = str(image.origin) if has_origin else f"layout.invalid/image@{image.digest}"
        for tag in image.tags or ("",):
            entry = ArchiveEntry(
                digest=image.digest,
                reference=reference,
                origin=str(image.origin or "") if origins and not attached else "",
                tag=tag,
                is_root_bundle=image.role is Role.ROOT and image.is_bundle and image.digest in bundles,
            )
            entries.append(entry)
    return entries
