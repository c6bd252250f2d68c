"""What an archive holds for its own sake: the units of a relocation, with the names they had and are to get."""

from __future__ import annotations

from msgspec import Struct

from oci.digest import Digest
from oci.errors import InvalidManifest, InvalidReference
from oci.reference import Reference, parse_any, parse_tag

IMGPKG = "imgpkg"
OCI_LAYOUT = "oci-layout"
FORMATS = (IMGPKG, OCI_LAYOUT)
"""Of archives that are written in parts, by their names in options."""

DOCKER_ARCHIVE = "docker-archive"

ROOT_LABEL = "dev.carvel.imgpkg.copy.root-bundle"
"""imgpkg's mark of the bundle that was asked for."""


class ArchiveEntry(Struct, frozen=True, kw_only=True):
    """An image, index or bundle. `reference` is where it was read from, by digest; `origin` how a lock names it, or
    empty; `tag` the name it is to get at the destination, or empty."""

    digest: Digest
    reference: str
    origin: str = ""
    tag: str = ""
    is_root_bundle: bool = False

    @property
    def pinned_origin(self) -> Reference | None:
        """The origin, or else where the image was read from; None for a text of another program without a digest."""
        return _pinned(self.origin or self.reference)

    @property
    def pinned(self) -> tuple[Reference, ...]:
        """Where the image was read from, and its origin, as far as these have a digest."""
        return tuple(filter(None, map(_pinned, (self.reference, self.origin))))

    def is_called(self, text: str) -> bool:
        """Says whether `text` names the image: by a tag, a digest, a reference with one of these, or the repository
        that it came from."""
        if text in (self.digest, self.tag) and text:
            return True
        reference = _parsed(text)
        if reference is None or reference.digest is not None:
            return reference is not None and reference.digest == self.digest
        repositories = {name.partition("@")[0] for name in (self.reference, self.origin)}
        tagged = ":" in text.rpartition("/")[2]
        return str(reference.repository) in repositories and (not tagged or reference.tag == self.tag)


def entry_of(
    digest: Digest, path: str, *, reference: object, origin: object, tag: object, is_root_bundle: bool
) -> ArchiveEntry:
    """Makes an element of what an archive says at `path`. An absent text, `null` and "" count as no text.

    Raises InvalidManifest for a tag or reference that isn't one by grammar: both become part of a registry's URLs.
    """
    try:
        return ArchiveEntry(
            digest=digest,
            reference=_reference_text(reference),
            origin=_reference_text(origin),
            tag="" if tag in (None, "") else parse_tag(tag),
            is_root_bundle=is_root_bundle,
        )
    except InvalidReference as error:
        raise refused_name(path, error) from error


def tag_in_name(name: object, path: str) -> str:
    """Returns the tag in a name that a layout carries (image-spec, annotations.md,
    `org.opencontainers.image.ref.name`): the name itself, or what follows the colon in the full name of an image. Empty
    for a full name without a tag, and for none.

    Raises InvalidManifest for a name that is neither a tag nor the full name of an image.
    """
    if name is None:
        return ""
    try:
        if not isinstance(name, str) or not (":" in name or "/" in name):
            return parse_tag(name)
        host, slash, _ = name.partition("/")
        tagged = ":" in name.partition("@")[0].rpartition("/")[2]
        if not tagged and not (slash and ("." in host or ":" in host or host == "localhost")):
            return parse_tag(name)
        reference = Reference.parse(name)
    except InvalidReference as error:
        raise refused_name(path, error) from error
    return reference.tag if tagged else ""


def refused_name(path: str, error: InvalidReference) -> InvalidManifest:
    return InvalidManifest(
        f"{path}: {error.message}", hint="the archive was damaged or forged: make it again from a source you trust"
    )


def _reference_text(text: object) -> str:
    if text in (None, ""):
        return ""
    if not isinstance(text, str) or not text.isprintable():
        raise InvalidReference(f"{str(text)[:100]!r} is not a reference")
    parse_any(text)
    return text


def _pinned(text: str) -> Reference | None:
    reference = _parsed(text)
    return reference if reference is not None and reference.digest is not None else None


def _parsed(text: str) -> Reference | None:
    try:
        return parse_any(text)
    except InvalidReference:
        return None
