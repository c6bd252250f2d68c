"""Which content a source reference means now."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import DEFAULT

from oci.descriptor import INDEX_TYPES
from oci.reference import Reference, parse_any
from oci.relocation.session import Session
from oci.store import found_manifest
from tasks.relocation import current
from tasks.resolution import Resolution
from tasks.retries import DELAYS, RETRIES, worth_retrying


@task(
    name="resolve bundle",
    task_run_name="resolve {kind} {source}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=DEFAULT,
    persist_result=True,
    result_serializer="json",
)
async def resolve_bundle(kind: str, source: str) -> Resolution:
    """Asks the source, by one HEAD, for the digest of `source`. `kind` is "bundle", "image", "lock" or "archive".

    The answer is kept for the flow run: when it is retried, a tag that has moved on meanwhile doesn't mix two contents.
    """
    if kind in ("lock", "archive"):
        return Resolution(what=kind, reference=source, pinned=source)
    reference = parse_any(source)
    relocation = current()
    return await relocation.in_thread(_resolve, await relocation.session(), kind, reference)


def _resolve(session: Session, kind: str, reference: Reference) -> Resolution:
    store = session.source(reference.repository)
    found = found_manifest(store, reference.identifier)
    return Resolution(
        what="index" if kind == "image" and found.media_type in INDEX_TYPES else kind,
        reference=str(reference),
        pinned=str(reference.at(found.digest)),
        digest=found.digest,
        tag=reference.tag,
        media_type=found.media_type,
        size=found.size,
    )
