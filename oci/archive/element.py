"""What an archive holds for its own sake: the units of a relocation, with the names they had and are to get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from oci.digest import Digest
from oci.reference import Repository, parse_any, parse_store
from oci.relocation.plan import Plan, PlannedManifest, Role

ROOT_LABEL = "dev.carvel.imgpkg.copy.root-bundle"
"""imgpkg's mark of the bundle that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An image, index or bundle. `reference` is where it was read from, by digest; `origin` how a lock names it, or
    empty; `tag` the name it is to get at the destination, or empty."""

    digest: Digest
    reference: str
    origin: str = ""
    tag: str = ""
    is_root_bundle: bool = False


def elements_of(plan: Plan, *, origins: bool) -> list[Element]:
    """One for each image of a plan and each of its tags. With `origins` (imgpkg: for a bundle that was named by a
    reference, not by a lock) they remember how their lock names them."""
    return [element for image in plan.images for element in _elements(plan, image, origins=origins)]


def _elements(plan: Plan, image: PlannedManifest, *, origins: bool) -> Iterable[Element]:
    is_root = image.role is Role.ROOT
    attached = image.role in (Role.SIGNATURE, Role.REFERRER)
    for tag in image.tags or ("",):
        yield Element(
            digest=image.digest,
            reference=_reference(image),
            origin=image.origin if origins and not attached else "",
            tag=tag,
            is_root_bundle=is_root and image.is_bundle and image.digest in {one.digest for one in plan.bundles},
        )


def _reference(image: PlannedManifest) -> str:
    """Imgpkg parses it, so a folder or an archive is given a registry's name, one that can't exist (RFC 6761)."""
    if isinstance(parse_store(image.store), Repository):
        return f"{image.store}@{image.digest}"
    known = image.origin and isinstance(parse_any(image.origin).repository, Repository)
    return image.origin if known else f"layout.invalid/image@{image.digest}"
