"""The request for a copy: one source, one destination, and how."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from msgspec import Meta

from oci.bundle.tagnames import NameRule, check_backup
from oci.descriptor import Platform
from oci.errors import InvalidInput
from oci.options import Options, option, required
from oci.reference import ArchiveName, Reference, StoreName, parse_any, parse_store, parse_tag
from oci.signatures.artifacts import ArtifactSelection, ArtifactWord, GateOptions, check_policy, check_words, spelled

TagName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")]


class CopyOptions(GateOptions):
    tags: tuple[TagName, ...] = option(
        (),
        "Tags to give at the destination, instead of the source's.",
        flag="--to-tag",
        examples=[["1.4.0", "latest"]],
        max_length=100,
    )
    artifacts: tuple[ArtifactWord, ...] = option(
        (),
        "What travels along with each image: all, none, cosign (what is kept under tags; sig, att and sbom are its "
        "kinds), referrers (what names an image as its subject), or artifact types, with * and ?. With ! in front, "
        "what is left behind.",
        title="Attached artifacts",
        examples=[["all", "!application/spdx+json"]],
        spelled=spelled,
        max_length=50,
    )
    platforms: tuple[Annotated[str, Meta(pattern=r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?\Z")], ...] = option(
        (),
        "Copy these platforms of an index only. The index is rewritten and gets a new digest.",
        flag="--platform",
        examples=[["linux/amd64", "linux/arm64"]],
        max_length=50,
    )
    shallow: bool = option(False, "Copy the bundle's own image and nothing that it lists.")
    repair: bool = option(False, "Ask the destination for every blob, and send again what it has lost.")
    names: tuple[str, ...] = option(
        (),
        "Rules [PATTERN=]TEMPLATE that give each listed image a tag, of {name}, {path}, {tag} and {short}.",
        title="Readable names",
        flag="--name-images",
        commas=False,
        examples=[["{name}-{short}"]],
        max_length=100,
    )
    repo_based_tags: bool = option(
        False, "Keep-alive tags that show where an image came from.", title="Readable keep-alive tags"
    )
    backup: str = option(
        "",
        "Before a tag moves, the image that it shows gets this one: {tag}, {short} (12 characters of its digest) and "
        "{date} (today, in UTC) stand for what they say. Empty: the old image keeps no name.",
        title="Backup tag",
        flag="--backup-tag",
        examples=["{tag}-before-{date}"],
        max_length=128,
    )
    include_non_distributable: bool = option(
        False,
        "Copy layers whose makers forbid their distribution; you need their permission.",
        title="Include non-distributable layers",
        flag="--include-non-distributable-layers",
    )
    only: tuple[Annotated[str, Meta(min_length=1, max_length=2000)], ...] = option(
        (),
        "Copy these images of an archive, with what belongs to them: digests, tags, or references as it has them.",
        max_length=1000,
        commas=False,
    )

    require_signature: str = option(
        "",
        "Public key that an archive must be signed with: beside each of its files NAME.sigstore.json, over its "
        "SHA-256. Nothing gets a name before all of the archive was read and that holds.",
        title="Require a signed archive",
        examples=["/etc/transship/cosign.pub"],
        metavar="KEY",
        max_length=2000,
        group="signatures",
    )


class ReceiptOptions(Options):
    """What is left in writing of a relocation that is complete, and who signs it."""

    receipt: str = option(
        "",
        "Write what is where now, from where, and how, as an in-toto statement. An archive gets one inside.",
        examples=["/var/lib/transship/shop.receipt.json"],
        metavar="FILE",
        max_length=4096,
        group="signatures",
    )
    attach_receipt: bool = option(
        False,
        "Attach the signed receipt to the root at the destination, as cosign attaches attestations.",
        title="Attach the receipt",
        group="signatures",
    )
    sign: str = option(
        "",
        "Private key, PEM or cosign's with COSIGN_PASSWORD, that signs the receipt and an archive "
        "(NAME.sigstore.json).",
        title="Sign with",
        examples=["/etc/transship/cosign.key"],
        metavar="KEY",
        max_length=2000,
        group="signatures",
    )

    @property
    def requested(self) -> bool:
        return bool(self.receipt or self.attach_receipt)

    def check_for(self, request: RelocationRequest, *, signed: bool) -> None:
        """Raises InvalidInput for what can't be done; `signed` says whether there is a key, be it no file."""
        to_archive = isinstance(request.destination, ArchiveName)
        if self.attach_receipt and to_archive:
            raise InvalidInput(
                "a receipt is attached to an image in a registry or a folder",
                hint="an archive has it inside: --receipt FILE",
            )
        if self.attach_receipt and not signed:
            raise InvalidInput("only a signed receipt can be attached", hint="name the key: --sign KEY")
        if signed and not (self.requested or to_archive):
            raise InvalidInput(
                "there is nothing to sign: a copy is proven by digests, and what is signed is a receipt or an archive",
                hint="add --receipt FILE or --attach-receipt",
            )


class RelocationRequest(CopyOptions, dict=True):
    """What to copy, where to, and how. Exactly one of `bundle`, `image`, `lock` and `archive` names the source. Raises
    InvalidInput when the parts don't fit."""

    bundle: str = option(
        "",
        "Bundle with everything it lists: REGISTRY/REPOSITORY:TAG or oci:PATH.",
        short="-b",
        examples=["registry.example/shop/shop-bundle:1.4.0"],
    )
    image: str = option("", "One image or index, in the same form.", short="-i")
    lock: str = option("", "BundleLock or ImagesLock file.")
    archive: tuple[str, ...] = option(
        (), "Archive, a file or s3://BUCKET/KEY (repeat it for volumes).", flag="--tar", commas=False
    )
    to: str = required(
        "REGISTRY/REPOSITORY, oci:PATH for an image-layout folder, or where an archive is to be: a file or "
        "s3://BUCKET/KEY. No tag.",
        title="Destination",
        examples=["registry.corp.example/mirror/shop", "s3://archives/shop-1.4.0.tar"],
    )
    image_may_be_bundle: bool = option(
        False, "An image that is a bundle brings along what it lists.", title="Image or bundle", hidden=True
    )
    asked_tag: str = option(
        "",
        "The tag of a source that was pinned to its digest since: a policy may ask.",
        title="Asked by tag",
        hidden=True,
    )
    tag_keeps_alive: bool = option(False, "An image that gets a tag of its own gets no keep-alive tag.", hidden=True)

    def __post_init__(self) -> None:
        sources = [name for name in ("bundle", "image", "lock", "archive") if getattr(self, name)]
        if len(sources) != 1:
            raise InvalidInput(
                f"expected one source, got {', '.join(sources) or 'none'}",
                hint="give exactly one of bundle, image, lock, archive",
            )
        if self.only and not self.archive:
            raise InvalidInput("only an archive can be asked for some of its images")
        if self.require_signature and not self.archive:
            raise InvalidInput(
                "only an archive is signed as a whole", hint="for images, write a policy and name it with --policy"
            )
        check_words(self.artifacts)
        check_backup(self.backup)
        check_policy(self.policy, required=self.require_signatures)
        if self.image_may_be_bundle and not self.image:
            raise InvalidInput("only what is asked for as an image can be either an image or a bundle")
        for tag in self.tags:
            parse_tag(tag)
        if self.platforms and (self.bundle or self.archive):
            raise InvalidInput(
                "platforms can't be left out of a bundle, whose lock pins whole indexes by digest, nor of an archive",
                hint="copy the images with -i or an ImagesLock",
            )
        if self.tags and self.lock:
            raise InvalidInput("a lock names its own tag; other tags can't be given with it")
        _ = self.destination, self.wanted_platforms, self.name_rules  # raises for text that doesn't parse

    @property
    def source_text(self) -> str:
        """Returns the source, as it was asked for."""
        return self.bundle or self.image or self.lock or ", ".join(self.archive)

    @cached_property
    def reference(self) -> Reference:
        return parse_any(self.bundle or self.image)

    @cached_property
    def archive_name(self) -> ArchiveName:
        return ArchiveName.of(*self.archive)

    @cached_property
    def destination(self) -> StoreName:
        return parse_store(self.to)

    @cached_property
    def wanted_artifacts(self) -> ArtifactSelection:
        return ArtifactSelection(self.artifacts)

    @cached_property
    def wanted_platforms(self) -> tuple[Platform, ...]:
        return tuple(map(Platform.parse, self.platforms))

    @cached_property
    def name_rules(self) -> tuple[NameRule, ...]:
        return tuple(map(NameRule.parse, self.names))
