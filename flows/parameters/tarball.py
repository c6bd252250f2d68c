"""How a flow writes an archive."""

from __future__ import annotations

from typing import Annotated

from oci.export.options import ExportOptions
from oci.options import Options, option
from tasks.fleet import Fleet


class TarballOptions(Options, frozen=True, kw_only=True):
    """How an archive is written, and by whom."""

    export: Annotated[ExportOptions, option("Export", "How the archive is written.", flat=True)] = ExportOptions()
    resume: Annotated[bool, option("Resume", "Go on with what an earlier run of the same archive has stored.")] = True
    sha256sums: Annotated[
        bool, option("SHA256SUMS", "Write NAME.SHA256SUMS beside the archive; reads it once more.")
    ] = False
    groups: Annotated[
        int, option("Groups of parts", "Each is a task run that is retried alone.", ge=1, le=500, group="advanced")
    ] = 8
    deployment: Annotated[
        str,
        option(
            "Fleet",
            "FLOW/DEPLOYMENT that writes a group of parts on any worker. Empty: this run writes all groups.",
            examples=["write-archive-parts/fleet"],
            pattern=r"^([^/]+/[^/]+)?$",
            max_length=400,
            group="advanced",
        ),
    ] = ""

    def fleet(self) -> Fleet:
        return Fleet(deployment=self.deployment)
