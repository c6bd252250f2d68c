"""Short ways to prune in tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from oci.prune.execute import execute
from oci.prune.plan import PrunePlan, PruneReport
from oci.prune.planner import make_prune_plan, remember
from oci.prune.policy import Keep
from oci.reference import parse_store
from tests.support.content import OCI_INDEX, OCI_MANIFEST, Content, compact
from tests.support.relocating import session

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NO_GRACE = timedelta(0)
ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"}


def planned(
    where: str, *, grace: timedelta = NO_GRACE, now: datetime = NOW, note: bool = False, **keep: Any
) -> PrunePlan:
    """A plan for a repository or a layout; with `note`, since when things are unwanted is kept there."""
    with session() as one:
        plan = make_prune_plan(one, parse_store(where), Keep(**keep), grace=grace, now=now)
        if note:
            remember(one, parse_store(where), plan)
        return plan


def carried_out(plan: PrunePlan, *, now: datetime = NOW, keep: Keep | None = None) -> PruneReport:
    with session() as one:
        return execute(one, plan, now=now, keep=keep)


def pruned(where: str, **keep: Any) -> PruneReport:
    return carried_out(planned(where, **keep))


def names(plan: PrunePlan) -> set[str]:
    return {one.digest for one in plan.manifests}


def has(url: str, repository: str, content: Content | str) -> bool:
    """By plain HTTP: is the manifest there?"""
    name = content if isinstance(content, str) else content.digest
    return httpx.head(f"{url}/v2/{repository}/manifests/{name}", headers=ACCEPT).status_code == 200


def tags_of(url: str, repository: str) -> set[str]:
    answer = httpx.get(f"{url}/v2/{repository}/tags/list?n=1000")
    return set(json.loads(answer.content).get("tags") or ()) if answer.status_code == 200 else set()


def referrers_index(*referrers: Content) -> Content:
    """What stands under the tag of a subject in a registry without the referrers API."""
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [one.descriptor() for one in referrers]}
    return Content(OCI_INDEX, compact(body), (), tuple(referrers))


def keep_alive(content: Content) -> str:
    return f"sha256-{content.hex}.imgpkg"
