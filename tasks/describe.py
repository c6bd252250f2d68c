"""Looking into a bundle."""

from __future__ import annotations

from collections.abc import Iterator

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.bundle import describe as core
from oci.bundle.describe import DescribedBundle
from oci.reference import Reference, parse_any
from oci.relocation.session import Session
from tasks.page import table
from tasks.report import artifact_key
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.visit import visited

_SHOWN = 1000
"""Rows of the page; the result has everything."""


class Content(BaseModel):
    """One thing that a bundle holds, at whatever depth."""

    depth: int
    """0 for what the described bundle lists itself."""
    kind: str
    """"Bundle", "Image", "Signature" or "Internal" (where a relocation says what it has brought)."""
    image: str
    origin: str
    layers: list[str] = []
    annotations: dict[str, str] = {}
    error: str = ""
    """Why the registry wouldn't say whether there is a signature; `image` is its tag then."""


class DescribeReport(BaseModel):
    digest: str
    image: str
    contents: list[Content]
    document: str
    """The same in YAML, as `transship describe -o yaml` prints it."""

    @classmethod
    def of(cls, bundle: DescribedBundle) -> DescribeReport:
        return cls(
            digest=bundle.digest,
            image=bundle.image,
            contents=list(_contents(bundle, 0)),
            document=core.as_yaml(bundle),
        )

    def to_markdown(self) -> str:
        rows = (
            ("- " * one.depth + one.kind, one.error or f"`{one.image}`", one.origin, str(len(one.layers) or ""))
            for one in self.contents[:_SHOWN]
        )
        more = f"and {len(self.contents) - _SHOWN} more" if len(self.contents) > _SHOWN else ""
        lines = (f"## {self.image.partition('@')[0]}", "", f"`{self.digest}`", "")
        return "\n".join((*lines, *table(("Type", "Image", "Origin", "Layers"), rows), more))


def _contents(bundle: DescribedBundle, depth: int) -> Iterator[Content]:
    for one in bundle.bundles:
        yield Content(
            depth=depth,
            kind="Bundle",
            image=one.image,
            origin=one.origin,
            layers=list(one.layers),
            annotations=dict(one.annotations),
        )
        yield from _contents(one, depth + 1)
    for image in bundle.images:
        yield Content(
            depth=depth,
            kind=image.kind,
            image=image.image or image.key,
            origin=image.origin,
            layers=list(image.layers),
            annotations=dict(image.annotations),
            error=image.error,
        )


@task(
    name="describe bundle",
    task_run_name="describe {bundle}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def describe_bundle(bundle: str, *, layers: bool = True, signatures: bool = True) -> DescribeReport:
    """Reads the bundle and everything it lists, and writes the page of it."""
    visit = visited()
    reference = parse_any(bundle)
    found = await visit.in_thread(_describe, await visit.session(), reference, layers=layers, signatures=signatures)
    report = DescribeReport.of(found)
    await acreate_markdown_artifact(
        key=artifact_key("describe", str(reference.repository)),
        markdown=report.to_markdown(),
        description=f"What {reference} holds",
    )
    get_run_logger().info("%s holds %d images and bundles", report.image, len(report.contents))
    return report


def _describe(session: Session, reference: Reference, *, layers: bool, signatures: bool) -> DescribedBundle:
    return core.describe(session.source, reference, session.workers, layers=layers, signatures=signatures)
