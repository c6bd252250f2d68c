"""From the plan of a relocation to that of an archive: what is in it, in which order, in which volumes and parts; and
what the other side of an air gap has already, so that a delta leaves it out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Raw
from msgspec.structs import replace

from oci.archive import index_json, manifest_json
from oci.archive.entry import IMGPKG, ArchiveEntry
from oci.archive.index import TRANSSHIP_JSON, RequiredBlob, TransshipJson
from oci.archive.options import SMALLEST, ExportOptions
from oci.archive.source import ArchiveSource
from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST
from oci.digest import PATTERN, Digest, digest_of
from oci.errors import (
    Incomplete,
    IntegrityError,
    InvalidInput,
    InvalidManifest,
    InvalidReference,
    NotFound,
    Refused,
    StoreError,
    TransshipError,
)
from oci.export import tar_plan
from oci.export.file_writer import open_writer
from oci.export.plan import ArchivePlan, Volume, is_written
from oci.export.tar_plan import MemberContent, PlannedMember, TarPlan, lay_out
from oci.files import tar
from oci.layout.index import LAYOUT_FILE
from oci.manifest import Manifest
from oci.output import read_named
from oci.reference import ARCHIVE_PREFIX, LAYOUT_PREFIX, ArchiveName, in_object_store, parse_store
from oci.relocation.plan import Plan, PlannedBlob, Role
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import load_manifest
from oci.units import counted

_DIGESTS_OF_NOTHING = frozenset(f"{name}:{hashlib.new(name).hexdigest()}" for name in ("sha256", "sha512"))

CONFIG_LIMIT = 16 << 20
"""Bytes of a config that is held as text: image configs have some thousand."""

_LIST_LIMIT = 64 << 20
_MAGIC = slice(257, 262)
_HEAD = 512


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
        base_name, elsewhere = _known_blobs(session, options.delta_from, plan, layers)
    chosen = [blob for blob in blobs if blob.digest not in elsewhere]
    left_out = tuple((blob.digest, blob.size) for blob in blobs if blob.digest in elsewhere)
    head, members = _contents(session, request, plan, manifests, chosen, kind=options.format)
    note = TransshipJson(requires=tuple(RequiredBlob(*blob) for blob in left_out), base=base_name)
    if options.record:
        from oci.receipts.record import receipt_of  # noqa: PLC0415 - only where it is asked for

        note = replace(note, receipt=Raw(receipt_of(session, request, plan).render()))
    tars = _tars(head, note, members, options)
    stem, suffix = os.path.splitext(destination.location)
    names = [destination.location]
    if len(tars) > 1:
        names = [f"{stem}.vol{number:03}{suffix}" for number in range(1, len(tars) + 1)]
    return ArchivePlan(
        source=plan.source,
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


def plan_resumed(
    session: Session, request: RelocationRequest, plan: Plan, options: ExportOptions | None = None
) -> ArchivePlan:
    """Like `plan_archive`, for a run that goes on with what an earlier one has left. Where a whole archive is at the
    destination already, that lends its layers, as in imgpkg. Raises Refused when something else is there."""
    options = options or ExportOptions()
    location = request.destination.location
    if options.base or not location:
        return plan_archive(session, request, plan, options)
    if in_object_store(location):
        planned = plan_archive(session, request, plan, options)
        store, meter, cancel = session.object_store(location), session.meter, session.cancel
        for volume in planned.volumes:
            writer = open_writer(volume.location, store, meter=meter, cancel=cancel)
            if writer.is_begun(volume.parts, volume.tar.fingerprint):
                return planned
        if is_written(session, planned):
            return planned
    try:
        session.archive(ArchiveName.of(location), "destination")
    except NotFound:
        return plan_archive(session, request, plan, options)
    except (InvalidManifest, IntegrityError) as error:
        raise Refused(f"Reading previously created tar: {error}", hint="remove it, or leave out --resume") from error
    return plan_archive(session, request, plan, options.with_(base=location))


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
    digests: set[Digest] = set()
    for planned in plan.manifests:
        manifest = manifests[planned.digest]
        layers = {layer.digest for layer in manifest.layers}
        config = manifest.config.digest if manifest.config else None
        digests.update(digest for digest in planned.blobs if with_configs or digest in layers or digest != config)
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


def _contents(
    session: Session,
    request: RelocationRequest,
    plan: Plan,
    manifests: Mapping[Digest, Manifest],
    blobs: Sequence[PlannedBlob],
    *,
    kind: str,
) -> tuple[list[MemberContent], list[MemberContent]]:
    """Returns the members that say what the archive holds, and those that the images are made of. A layout's manifests
    come first, so that they are read together."""
    entries = _entries(plan, origins=bool(request.bundle or request.archive))
    name = manifest_json.member_name if kind == IMGPKG else index_json.member_name
    members = [MemberContent(name(blob.digest), blob.size, digest=blob.digest) for blob in blobs]
    if kind == IMGPKG:
        rendered = manifest_json.render(entries, manifests, _configs(session, plan, manifests))
        return [MemberContent.of(manifest_json.NAME, rendered)], members
    head = [
        MemberContent.of(index_json.MARK, LAYOUT_FILE),
        MemberContent.of(index_json.INDEX, index_json.render(entries, manifests)),
    ]
    return head, [*(MemberContent.of(name(digest), manifests[digest].raw) for digest in sorted(manifests)), *members]


def _configs(session: Session, plan: Plan, manifests: Mapping[Digest, Manifest]) -> dict[Digest, bytes]:
    configs = {manifest.config.digest: manifest.config for manifest in manifests.values() if manifest.config}
    for config in configs.values():
        if config.size > CONFIG_LIMIT:
            raise InvalidManifest(
                f"the config {config.digest} has {config.size} bytes, too many for imgpkg's format",
                hint="write an OCI-layout archive: --tar-format oci-layout",
            )
    texts = session.workers.map(lambda digest: _small_blob(session, plan.blob_by_digest[digest]), configs)
    return dict(zip(configs, texts, strict=True))


def _small_blob(session: Session, planned: PlannedBlob) -> bytes:
    """Returns all bytes of a config or the like: from what planning has read, or from the first place that has them."""
    problem: TransshipError | None = None
    for store in planned.stores:
        try:
            return session.read_small(session.source(store), planned.descriptor)
        except (IntegrityError, StoreError) as error:
            problem = problem or error
    raise problem or InvalidInput(f"the plan names no place to read {planned.digest} from")


def _tars(
    head: Sequence[MemberContent], note: TransshipJson, members: Sequence[MemberContent], options: ExportOptions
) -> list[TarPlan]:
    """One tarball, or as many as it takes; the note is in it only where it says something."""

    def member(note: TransshipJson) -> MemberContent:
        return MemberContent.of(TRANSSHIP_JSON, note.to_json())

    noted = [member(note)] if note.requires or note.base or note.receipt else []
    whole = lay_out(options.format, [*head, *noted, *members])
    if not options.max_size or whole.size <= options.max_size:
        return [whole]
    longest_note = member(replace(note, volume=99999, volumes=99999, whole="0" * 64))
    shares = _shares(head, members, options.max_size, _length(longest_note) + len(tar.END))
    tars = []
    for number, share in enumerate(shares, 1):
        receipt = note.receipt if number == 1 else Raw()
        numbered = replace(note, volume=number, volumes=len(shares), whole=whole.fingerprint, receipt=receipt)
        tars.append(lay_out(options.format, [*(head if number == 1 else ()), member(numbered), *share]))
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
            hint="raise --max-size",
        )
    shares: list[list[MemberContent]] = [[]]
    for member in members:
        length = _length(member)
        if length + room > limit:
            raise InvalidInput(
                f"a volume holds whole blobs, and {member.digest or member.name} has {member.size} bytes, "
                f"more than one of {limit}",
                hint="raise --max-size",
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


def _offsets(base: ArchiveSource, plan: TarPlan) -> dict[str, int]:
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


def _entries(plan: Plan, *, origins: bool) -> list[ArchiveEntry]:
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


def _known_blobs(
    session: Session, where: str, plan: Plan, blobs: Iterable[PlannedBlob]
) -> tuple[str, frozenset[Digest]]:
    """Says what a delta leaves out: returns a name for `where`, and those of `blobs` that it has. `where` is what the
    other side has already: an archive, a repository, a layout folder, or a file with digests of blobs or images.

    Never the layers of bundles: an import has to read them to see what else there must be. Raises InvalidInput for
    anything else in `where`."""
    needed = {digest for manifest in plan.manifests if manifest.is_bundle for digest in manifest.blobs}
    optional = [blob for blob in blobs if blob.digest not in needed]
    location = where.removeprefix(ARCHIVE_PREFIX)
    if in_object_store(location) or (
        os.path.isfile(location) and _read(location, _HEAD, head=True)[_MAGIC] == b"ustar"
    ):
        contents = session.archive(ArchiveName.of(location), "destination").contents
        digests = {*contents.blobs, *contents.configs, *contents.transship_json.required}
        # One archive is told from another by the images that are in it.
        identity = digest_of("\n".join(sorted(contents.manifests)).encode())
        name = f"{location.rpartition('/')[2]} ({identity})"
        return name, frozenset(blob.digest for blob in optional if blob.digest in digests)
    if os.path.isfile(where):
        digests = _digests_in(where, plan)
        return os.path.basename(where), frozenset(blob.digest for blob in optional if blob.digest in digests)
    if os.path.isfile(os.path.join(where, "index.json")):
        where = f"{LAYOUT_PREFIX}{where}"
    try:
        if "/" not in where or where.endswith(".tar"):
            raise InvalidReference(f"{where!r} is no repository of a user")  # noqa: TRY301 - replaced below
        store = session.destination(parse_store(where))
    except InvalidReference as error:
        raise InvalidInput(
            f"{where!r} is neither an archive, nor a repository, nor a file with digests",
            hint="check the path; a repository is written without a tag: REGISTRY/REPOSITORY",
        ) from error
    sizes = session.workers.map(store.blob_size, [blob.digest for blob in optional])
    present = (blob.digest for blob, size in zip(optional, sizes, strict=True) if size == blob.size)
    return str(store.name), frozenset(present)


def _read(path: str, limit: int, *, head: bool = False) -> bytes:
    return read_named(path, "reading what the other side has", limit=limit, head=head)


def _digests_in(path: str, plan: Plan) -> set[Digest]:
    """Returns the digests that a file lists, and for each that is a manifest also those of its blobs and children."""
    digests = {Digest(text) for text in PATTERN.findall(_read(path, _LIST_LIMIT).decode(errors="replace"))}
    if not digests:
        raise InvalidInput(f"{path}: there is no digest in it", hint="give a lock file, or a list of digests")
    for manifest in reversed(plan.manifests):  # children come before what they belong to
        if manifest.digest in digests:
            digests.update((*manifest.blobs, *manifest.children))
    return digests
