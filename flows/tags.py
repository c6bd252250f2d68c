"""Listing the tags of a repository, or asking which digest one stands for."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.names import short
from flows.parameters.forms import flat
from flows.parameters.tags import TagAction, TagsParameters
from flows.results import or_failed, run_alone
from oci.bundle.results import TagsReport
from oci.units import counted
from tasks.access import OneSided
from tasks.inspect import list_repository_tags, resolve_one_tag
from tasks.run import running


def run_name() -> str:
    """`tags of registry.example/shop/web` or `resolve web 1.4.0`"""
    parameters = TagsParameters.read(flow_run.parameters)
    reference = parameters.reference()
    if parameters.action is TagAction.RESOLVE:
        return f"resolve {short(reference)}"
    return f"tags of {reference.repository}"


@flow(name="tags", flow_run_name=run_name, persist_result=False)
@flat
async def tags(parameters: TagsParameters) -> TagsReport:
    """Lists tags, or resolves one, as a result and as a table. Raises a TransshipError when the registry won't say."""
    reference = parameters.reference()
    async with running(OneSided(parameters.side(), "")):
        if parameters.action is TagAction.RESOLVE:
            return await or_failed(resolve_one_tag(str(reference)), _in_words)
        work = list_repository_tags(str(reference.repository), internal=parameters.internal, digests=parameters.digests)
        return await or_failed(work, _in_words)


def _in_words(report: TagsReport) -> str:
    return f"{report.repository} has {counted(len(report.tags), 'tag')}"


def tags_sync(parameters: TagsParameters) -> TagsReport:
    """`tags` for programs without an event loop. Raises InvalidInput where one runs: await `tags` there."""
    return run_alone(tags, parameters)
