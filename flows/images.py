"""Working on single bundles, images and repositories: push and pull of files, describe, tags, verify."""

from __future__ import annotations

import asyncio
from typing import cast

from prefect import flow

from flows.parameters.forms import alone, archive_name, flat, named
from flows.parameters.images import (
    DescribeParameters,
    PullParameters,
    PushParameters,
    TagAction,
    TagsParameters,
    VerifyParameters,
    VerifyReceiptParameters,
)
from oci.bundle.describe import DescribeReport
from oci.bundle.pull import PullReport
from oci.bundle.push import PushReport
from oci.bundle.tagnames import TagsReport
from oci.errors import Incomplete, StoreError, TransshipError
from oci.receipts.check import Checked
from oci.reference import parse_any
from oci.relocation.report import VerificationReport
from oci.relocation.verify import names_by_store
from oci.units import counted, some_of
from tasks.bundle import (
    compare_receipt,
    describe_bundle,
    list_repository_tags,
    pull_files,
    push_files,
    report_verification,
    resolve_tag_of,
    verify_place,
)
from tasks.run import DRIFT, completed, failed, or_failed, running


@named(PushParameters)
def push_name(parameters: PushParameters) -> str:
    """`push config 1.4.0 -> registry.example`"""
    destination = parameters.request().destination
    return f"push {destination.short} -> {destination.repository.short}"


@flow(name="push", flow_run_name=push_name, persist_result=False)
@flat
async def push(parameters: PushParameters) -> PushReport:
    """Packs files of the worker into one layer and pushes it. The same files give the same digest everywhere.

    Raises a TransshipError when they can't be packed or pushed; then the name wasn't moved.
    """
    async with running(parameters.run("destination")):
        outputs = (parameters.lock_output, parameters.to_tar)
        return await or_failed(push_files(parameters.request(), parameters.destination, *outputs))


push_sync = alone(push, PushParameters)


@named(PullParameters)
def pull_name(parameters: PullParameters) -> str:
    """`pull config 1.4.0 -> /srv/config`"""
    is_lock = parameters.kind == "lock"
    source = parameters.source.rpartition("/")[2] if is_lock else parse_any(parameters.source).short
    return f"pull {source} -> {parameters.folder}"


@flow(name="pull", flow_run_name=pull_name, persist_result=False)
@flat
async def pull(parameters: PullParameters) -> PullReport:
    """Pulls files into a folder of the worker, which is replaced as a whole when all of them are there.

    Raises a TransshipError when they can't be had; then the folder is as it was.
    """
    async with running(parameters.run("source")):
        work = pull_files(
            parameters.request(),
            parameters.source,
            parameters.folder,
            archive_name(parameters.archive),
            replace=parameters.replace,
        )
        return await or_failed(work)


pull_sync = alone(pull, PullParameters)


@named(DescribeParameters)
def describe_name(parameters: DescribeParameters) -> str:
    """`describe shop-bundle 1.4.0`"""
    return f"describe {parameters.reference().short}"


@flow(name="describe", flow_run_name=describe_name, persist_result=False)
@flat
async def describe(parameters: DescribeParameters) -> DescribeReport:
    """Reads a bundle and everything it lists. Raises a TransshipError when it is none, or when a part can't be read."""
    async with running(parameters.run("")):
        work = describe_bundle(
            parameters.reference(),
            archive_name(parameters.archive),
            layers=parameters.layers,
            signatures=parameters.cosign_artifacts,
        )
        return await or_failed(work, lambda report: f"{report.image}: {counted(len(report.contents), 'entry')}")


describe_sync = alone(describe, DescribeParameters)


@named(TagsParameters)
def tags_name(parameters: TagsParameters) -> str:
    """`tags of registry.example/shop/web` or `resolve web 1.4.0`"""
    reference = parameters.reference()
    if parameters.action is TagAction.RESOLVE:
        return f"resolve {reference.short}"
    return f"tags of {reference.repository}"


@flow(name="tags", flow_run_name=tags_name, persist_result=False)
@flat
async def tags(parameters: TagsParameters) -> TagsReport:
    """Lists tags, or resolves one, as a result and as a table. Raises a TransshipError when the registry won't say."""
    reference = parameters.reference()
    async with running(parameters.run("")):
        if parameters.action is TagAction.RESOLVE:
            work = resolve_tag_of(reference)
        else:
            work = list_repository_tags(reference.repository, internal=parameters.internal, digests=parameters.digests)
        return await or_failed(work, lambda report: f"{report.repository} has {counted(len(report.tags), 'tag')}")


tags_sync = alone(tags, TagsParameters)


@named(VerifyParameters)
def verify_name(parameters: VerifyParameters) -> str:
    """`verify shop 1.4.0`, `verify registry.corp.example/mirror/shop deep`, `verify images.lock.yml and 2 more`"""
    names = [
        *(parse_any(text).short for text in parameters.references),
        *parameters.repositories,
        *(path.rpartition("/")[2] for path in parameters.locks),
    ]
    return f"verify {some_of(names, 1)}{' deep' if parameters.deep else ''}"


@flow(name="verify", flow_run_name=verify_name, persist_result=False)
@flat
async def verify(parameters: VerifyParameters) -> VerificationReport:
    """Walks down from what is named, and asks for every blob, or with `deep` reads and hashes every byte.

    A relocation takes what a destination has by digest to be whole; a deep verification now and then proves that.
    Raises Incomplete when something is missing or wrong, after the report was written, and any other TransshipError
    when a place could not be looked at.
    """
    async with running(parameters.run("destination")):
        try:
            names = (parameters.references, parameters.repositories, parameters.locks)
            names_of = await asyncio.to_thread(names_by_store, *names)
            places = [await verify_place(store, list(names), deep=parameters.deep) for store, names in names_of.items()]
            report = await report_verification(places, deep=parameters.deep)
        except TransshipError as error:
            return cast("VerificationReport", failed(error))
    if report.complete:
        return completed(report)
    problems = [StoreError(problem) for problem in report.problems]
    hint = "relocate again with `repair`: what was lost is sent again"
    return cast("VerificationReport", failed(Incomplete(str(report), problems, hint=hint)))


verify_sync = alone(verify, VerifyParameters)


@named(VerifyReceiptParameters)
def verify_receipt_name(parameters: VerifyReceiptParameters) -> str:
    """`verify receipt shop.receipt.json`"""
    return f"verify receipt {parameters.receipt.rpartition('/')[2]}"


@flow(name="verify-receipt", flow_run_name=verify_receipt_name, persist_result=False)
@flat
async def verify_receipt(parameters: VerifyReceiptParameters) -> Checked:
    """Proves that a key has signed a receipt, and compares what it says with the destination as it is now.

    Raises Incomplete, from a state that is called Drift, when something differs, after the table of it was written;
    NotTrusted when no key has signed the receipt; and any other TransshipError when a place could not be looked at.
    """
    async with running(parameters.run("destination")):
        try:
            checked = await compare_receipt(
                parameters.receipt, list(parameters.keys), list(parameters.at), deep=parameters.deep
            )
        except TransshipError as error:
            return cast(Checked, failed(error))
    if not checked.differences:
        return completed(checked)
    problems = [StoreError(str(difference), side="destination") for difference in checked.differences]
    drift = Incomplete(str(checked), problems, hint="relocate again: what was lost is sent again, and tags move back")
    return cast(Checked, failed(drift, DRIFT))


verify_receipt_sync = alone(verify_receipt, VerifyReceiptParameters)
