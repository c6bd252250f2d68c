"""What one image is: its platforms, configs, layers and sizes, and what is attached to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any

from msgspec import Struct

from oci.bundle import image as bundle_image
from oci.descriptor import CONFIG_TYPES, Descriptor, Platform, parse_json
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.manifest import NESTING_LIMIT, Manifest
from oci.reference import Reference
from oci.signatures.artifacts import ALL, ArtifactSelection
from oci.signatures.attached import DEPTH, Attachments
from oci.store import Source

_DEEPEST = 32
"""Levels of an image's config: five in practice."""

BUNDLE, IMAGE, INDEX, ARTIFACT = "bundle", "image", "index", "artifact"


class Blob(Struct, frozen=True, kw_only=True):
    """A layer or a config, with its size in bytes."""

    digest: Digest
    size: int
    media_type: str

    @classmethod
    def of(cls, blob: Descriptor) -> Blob:
        return cls(digest=blob.digest, size=blob.size, media_type=blob.media_type)


class ImageFacts(Struct, frozen=True, kw_only=True):
    """One manifest that is no index. `config` is the document that the image's config holds, empty for an artifact;
    `size` the bytes of its layers and its config."""

    digest: Digest
    media_type: str
    kind: str
    platform: str
    size: int
    layers: tuple[Blob, ...]
    config: Mapping[str, Any]
    artifact_type: str = ""
    annotations: Mapping[str, str] = {}


class Attachment(Struct, frozen=True, kw_only=True):
    """What is attached to `subject`: under a tag of cosign's, or as a referrer of an artifact type."""

    subject: Digest
    digest: Digest
    tag: str = ""
    artifact_type: str = ""


class Inspection(Struct, frozen=True, kw_only=True):
    """`blobs` counts distinct layers and configs of all platforms, `size` is theirs in bytes. `unknown` says what
    couldn't be looked for, and why."""

    reference: str
    digest: Digest
    media_type: str
    kind: str
    blobs: int
    size: int
    images: tuple[ImageFacts, ...]
    attached: tuple[Attachment, ...] = ()
    annotations: Mapping[str, str] = {}
    unknown: tuple[str, ...] = ()


def inspect(
    source: Source, reference: Reference, threads: Executor, *, platforms: Iterable[Platform] = ()
) -> Inspection:
    """Reads the manifest, those below it for the platforms that are asked for (all, when none is), and their configs;
    no layer. Raises InvalidInput where the index has none of the platforms."""
    root = source.get_manifest(reference.identifier)
    requested = tuple(platforms)
    described = _below(source, root, threads)
    chosen = [
        (manifest, platform)
        for manifest, platform in described
        if not requested or (platform is not None and any(platform.matches(candidate) for candidate in requested))
    ]
    if requested and root.is_index and not chosen:
        existing = ", ".join(str(platform) for _, platform in described if platform is not None)
        raise InvalidInput(
            f"{reference} has no image for {', '.join(map(str, requested))}", hint=f"it has {existing or 'none'}"
        )
    images = tuple(threads.map(lambda pair: _facts(source, *pair), chosen if root.is_index else described))
    blobs = {blob.digest: blob.size for manifest, _ in described for blob in manifest.blobs}
    attached, unknown = _attached(source, [root.digest, *(manifest.digest for manifest, _ in described)], threads)
    return Inspection(
        reference=str(reference),
        digest=root.digest,
        media_type=root.media_type,
        kind=INDEX if root.is_index else images[0].kind,
        blobs=len(blobs),
        size=sum(blobs.values()),
        images=images,
        attached=attached,
        annotations=root.annotations,
        unknown=unknown,
    )


def _below(source: Source, root: Manifest, threads: Executor) -> list[tuple[Manifest, Platform | None]]:
    """Every manifest that is no index, once for each platform that it is listed for; each index is opened once, however
    often it is listed, or an index of twelve times an index, and so on, would be one of millions of images."""
    described: dict[tuple[Digest, Platform | None], Manifest] = {}
    opened: set[Digest] = set()
    level: list[tuple[Manifest, Platform | None]] = [(root, None)]
    for _ in range(NESTING_LIMIT + 2):
        listed: list[tuple[Descriptor, Platform | None]] = []
        for manifest, platform in level:
            if not manifest.is_index:
                described.setdefault((manifest.digest, platform), manifest)
            elif manifest.digest not in opened:
                opened.add(manifest.digest)
                listed += [(child, child.platform or platform) for child in manifest.child_manifests]
        digests = list(dict.fromkeys(child.digest for child, _ in listed))
        read = dict(zip(digests, threads.map(source.get_manifest, digests), strict=True))
        level = [(read[child.digest], platform) for child, platform in listed]
    return [(manifest, platform) for (_, platform), manifest in described.items()]


def _facts(source: Source, manifest: Manifest, platform: Platform | None) -> ImageFacts:
    config: dict[str, Any] = {}
    blob = manifest.config
    if blob is not None and blob.media_type in CONFIG_TYPES and blob.size <= bundle_image.CONFIG_LIMIT:
        config = read_config(bundle_image.blob_bytes(source, blob))
    kind = ARTIFACT if not config else BUNDLE if bundle_image.is_bundle(source, manifest) else IMAGE
    parts = (config.get(name) for name in ("os", "architecture", "variant"))
    return ImageFacts(
        digest=manifest.digest,
        media_type=manifest.media_type,
        kind=kind,
        platform=str(platform) if platform else "/".join(str(part) for part in parts if part),
        size=sum(blob.size for blob in manifest.blobs),
        layers=tuple(map(Blob.of, manifest.layers)),
        config=config,
        artifact_type=manifest.descriptor.artifact_type if not config else "",
        annotations=manifest.annotations,
    )


def read_config(data: bytes) -> dict[str, Any]:
    """Returns the document in an image's config; an empty one for what is no JSON object, or too deep to be one."""
    try:
        body = parse_json(data)
    except ValueError:
        return {}
    level = [body]
    for _ in range(_DEEPEST):
        lists = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for items in lists if not isinstance(items, str | int | float | None) for item in items]
    return body if isinstance(body, dict) and not level else {}


def _attached(
    source: Source, subjects: list[Digest], threads: Executor
) -> tuple[tuple[Attachment, ...], tuple[str, ...]]:
    """With what is attached to attachments, such as the signature of an SBOM."""
    unknown: list[str] = []
    looking = Attachments(
        ArtifactSelection(ALL),
        threads,
        listed={},
        failed=lambda subject, error: unknown.append(f"{subject}: {error.message}"),
        noted=lambda store, text: unknown.append(f"{store}: {text}"),
    )
    attachments: dict[tuple[Digest, Digest], Attachment] = {}
    level = list(dict.fromkeys(subjects))
    for _ in range(DEPTH):
        new: list[Digest] = []
        for subject in level:
            for artifact in looking.of_one(source, subject):
                if (subject, artifact.digest) not in attachments:
                    new.append(artifact.digest)
                attachments[subject, artifact.digest] = Attachment(
                    subject=subject, digest=artifact.digest, tag=artifact.tag, artifact_type=artifact.artifact_type
                )
        level = new
        if not level:
            break
    return tuple(attachments.values()), tuple(dict.fromkeys(unknown))
