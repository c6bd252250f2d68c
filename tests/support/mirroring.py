"""Mirrors for tests: images that differ by a line, and short ways to run and compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from oci.mirror.compare import compare
from oci.mirror.comparison import Comparison
from oci.mirror.config import Mirror
from oci.mirror.reader import make
from oci.mirror.results import MirrorReport
from oci.mirror.run import run_mirror
from oci.mirror.run_state import DigestCache, Shared
from oci.relocation.session import Session
from tests.support.content import Content, compact, image
from tests.support.relocating import anonymous


def mirror_of(source: str, *destinations: str, **more: Any) -> Mirror:
    """`source` is a repository, the path of a lock, or `bundle REFERENCE`."""
    kind = "lock" if source.endswith(".yml") else "bundle" if source.startswith("bundle ") else "repository"
    return make(
        Mirror,
        {
            "name": "web",
            "source": {kind: source.removeprefix("bundle ")},
            "destinations": [{"repository": one} for one in destinations],
            **more,
        },
    )


def variant(base: Content, number: int, **annotations: str) -> Content:
    """The same image with another digest, for the price of one manifest."""
    body = json.loads(base.raw) | {"annotations": {"number": str(number), **annotations}}
    return Content(base.media_type, compact(body), base.blobs)


def many(count: int, seed: int = 1) -> dict[str, Content]:
    """Tags v0000, v0001... that share their blobs."""
    base = image(seed)
    return {f"v{number:04}": variant(base, number) for number in range(count)}


def session_of(concurrency: int = 8, **settings: Any) -> Session:
    access = anonymous(concurrency=concurrency + 1, **settings)
    return Session(source=access, destination=access, concurrency=concurrency)


RUN: Mapping[str, Any] = {}
AUDIT: Mapping[str, Any] = {"audit": True}
CHECK: Mapping[str, Any] = {"audit": True, "thorough": True}
"""What comparisons cover, as fields of Shared."""


def run(
    mirror: Mirror,
    session: Session | None = None,
    *,
    scope: Mapping[str, Any] = RUN,
    facts: DigestCache | None = None,
    now: datetime | None = None,
    **settings: Any,
) -> MirrorReport:
    with session or session_of(**settings) as one:
        shared = Shared(facts=facts or DigestCache(), **scope, now=now)
        return run_mirror(one, mirror, shared)


def compared(
    mirror: Mirror, *, scope: Mapping[str, Any] = RUN, facts: DigestCache | None = None, **settings: Any
) -> Comparison:
    with session_of(**settings) as one:
        return compare(one, mirror, Shared(facts=facts or DigestCache(), **scope))


def states(comparison: Comparison) -> Mapping[str, str]:
    """Of the first destination, by tag."""
    return {tag.tag: tag.state.value for tag in comparison.destinations[0].tags}
