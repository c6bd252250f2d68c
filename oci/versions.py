"""Tags that are versions: `1.4.0`, `v1.4.0`, `1.4`, `1.4.0-rc.1`, and `1.4.0_build.7`, for a tag can't hold a `+`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semantic_version import Version

from oci.ranges import parse_range

_VERSION = re.compile(r"v?(\d{1,18})\.(\d{1,18})(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:_([0-9A-Za-z._-]+))?")


def version_of(tag: str) -> Version | None:
    """None for a tag that is no version: one number alone, or a prerelease that breaks the rules of semver."""
    found = _VERSION.fullmatch(tag)
    if not found:
        return None
    major, minor, patch, prerelease, _ = found.groups()
    try:
        return Version(
            major=int(major),
            minor=int(minor),
            patch=int(patch or 0),
            prerelease=tuple((prerelease or "").split(".")) if prerelease else (),
        )
    except ValueError:
        return None


def in_ranges(version: Version, ranges: Sequence[str], *, prereleases: bool) -> bool:
    """Whether one of the ranges holds the version; no range at all holds every one. A prerelease belongs to a range
    that names it (`>=1.4.0-rc.1`), and with `prereleases` to one that holds the version it comes before."""
    if not ranges:
        return prereleases or not version.prerelease
    return any(parse_range(text).holds(version, prereleases=prereleases) for text in ranges)
