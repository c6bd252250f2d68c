"""Looking at the tags of a repository."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.bundle import tagnames as core
from oci.bundle.tagnames import Tag
from oci.reference import Reference, parse_any
from oci.relocation.session import Session
from tasks.report import artifact_key
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.visit import visited

_SHOWN = 1000
"""Rows of the artifact; the result has all tags."""


class TagDigest(BaseModel):
    name: str
    digest: str = ""
    """Empty where it wasn't asked for, or where the tag went away since it was listed."""


class TagsReport(BaseModel):
    """Sorted by name. A resolved tag is the only one of its list."""

    repository: str
    tags: list[TagDigest]


@task(
    name="list tags",
    task_run_name="list tags of {repository}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def list_tags(repository: str, *, internal: bool = False, digests: bool = False) -> TagsReport:
    """The tags of a repository, with `digests` a HEAD for each, and as a table artifact."""
    visit = visited()
    found = await visit.in_thread(_list, await visit.session(), repository, internal=internal, digests=digests)
    return await _shown(repository, [TagDigest(name=tag.name, digest=tag.digest or "") for tag in found])


def _list(session: Session, repository: str, *, internal: bool, digests: bool) -> tuple[Tag, ...]:
    source = session.source(parse_any(repository).repository)
    return core.list_tags(source, internal=internal, digests=session.workers if digests else None)


@task(
    name="resolve tag",
    task_run_name="resolve {reference}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def resolve_tag(reference: str) -> TagsReport:
    """The digest that a tag stands for, by one HEAD, and as a table artifact."""
    visit = visited()
    asked = parse_any(reference)
    found: Reference = await visit.in_thread(_resolve, await visit.session(), asked)
    return await _shown(str(asked.repository), [TagDigest(name=asked.tag, digest=found.digest or "")])


def _resolve(session: Session, reference: Reference) -> Reference:
    return core.resolve_tag(session.source(reference.repository), reference)


async def _shown(repository: str, tags: list[TagDigest]) -> TagsReport:
    more = f", the first {_SHOWN} of {len(tags)}" if len(tags) > _SHOWN else ""
    await acreate_table_artifact(
        key=artifact_key("tags", repository),
        table=[{"Name": tag.name, "Digest": tag.digest} for tag in tags[:_SHOWN]],
        description=f"Tags of {repository}{more}",
    )
    get_run_logger().info("%d tags in %s", len(tags), repository)
    return TagsReport(repository=repository, tags=tags)
