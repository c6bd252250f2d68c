"""The tags a relocation leaves in a repository beside the user's own; other tools find things by them."""

from __future__ import annotations

import re

from oci.digest import Digest

KEEP_ALIVE_SUFFIX = ".imgpkg"
LOCATIONS_SUFFIX = f".image-locations{KEEP_ALIVE_SUFFIX}"

_LONGEST_HEX = 64
"""Characters of a digest that a tag has room for (distribution-spec, "Referrers Tag Schema")."""

_LONGEST_NAME = 49
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
_COSIGN = re.compile(r"sha(256|512)-[0-9a-f]{64}\.(sig|att|sbom)")
_LEADING = re.compile(r"^[^A-Za-z0-9_]+")


def keep_alive(digest: Digest) -> str:
    """The tag that holds a manifest against a registry's garbage collection."""
    return f"{referrers(digest)}{KEEP_ALIVE_SUFFIX}"


def repo_based(reference: str, digest: Digest) -> str:
    """As `keep_alive`, with the end of the image's name in front, for people who read tag lists.

    `reference` is where the image comes from, canonical; of it counts the repository path without the registry.
    """
    path = reference.partition("@")[0].partition("/")[2].replace("/", "-")
    name = _clean(_clean(path)[-_LONGEST_NAME:])
    return f"{name}-{keep_alive(digest)}".removeprefix("-")


def locations(bundle: Digest) -> str:
    """The tag of a bundle's locations image."""
    return f"{referrers(bundle)}{LOCATIONS_SUFFIX}"


def cosign(digest: Digest) -> tuple[str, ...]:
    """Where cosign keeps signatures, attestations and SBOMs of an image."""
    return tuple(f"{referrers(digest)}.{kind}" for kind in ("sig", "att", "sbom"))


def is_cosign(tag: str) -> bool:
    return _COSIGN.fullmatch(tag) is not None


def referrers(subject: Digest) -> str:
    """The tag of the index of referrers in a registry without the referrers API."""
    algorithm, _, encoded = subject.partition(":")
    return f"{algorithm}-{encoded[:_LONGEST_HEX]}"


def is_internal(tag: str) -> bool:
    """Whether a tag was made for a tool: keep-alive and locations tags, which a tag list hides."""
    return tag.endswith(KEEP_ALIVE_SUFFIX)


def _clean(name: str) -> str:
    return _LEADING.sub("", _FOREIGN.sub("", name))
