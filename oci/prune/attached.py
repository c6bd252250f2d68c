"""Tags that are attached to a digest, by having it in their name: keep-alive, locations, signatures, referrers."""

from __future__ import annotations

import re

from oci.bundle import tagnames
from oci.digest import Digest

_ATTACHED = re.compile(r"(?:.+-)?(sha(?:256|512)-[0-9a-f]{64})(?:\.[A-Za-z0-9_.-]+)?")


def attached_to(tag: str) -> str:
    """The `sha256-<hex>` in a tag's name, as `tagnames.referrers` makes it of a digest; empty for any other tag."""
    found = _ATTACHED.fullmatch(tag)
    return found.group(1) if found else ""


def digest_named(tag: str) -> Digest | None:
    """The digest in a tag's name; None too for one that was too long for a tag and was cut."""
    algorithm, _, encoded = attached_to(tag).partition("-")
    return Digest(f"{algorithm}:{encoded}") if algorithm == "sha256" else None


def is_keep_alive(tag: str) -> bool:
    """Whether a tag shows the very manifest that its name names."""
    internal = tag.endswith(tagnames.KEEP_ALIVE_SUFFIX) and not tag.endswith(tagnames.LOCATIONS_SUFFIX)
    return internal and digest_named(tag) is not None
