"""`transship mirror check`"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags, store_flags
from flows.cli.click_ext import Invocation, OutputFile, Verb, everywhere
from flows.cli.mirror.shared import Mirrors, mirror_flags, warn_of_nothing
from flows.cli.output import ExitCode
from oci.archive.s3_options import S3Options
from oci.errors import Incomplete, TransshipError
from oci.mirror.comparison import Comparison, TagState
from oci.units import counted

_DRIFT = ("Mirror", "Destination", "Tag", "State", "Reason")


@click.command(name="check", cls=Verb, examples=("", "web charts -f mirrors.yaml", "-f mirrors.yaml --json"))
@mirror_flags
@click.option("--report", type=OutputFile(), default="", help="Write what was found to a JSON file.")
@registry_flags(sides=True)
@store_flags
@everywhere
@click.pass_obj
def check(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> int:
    """Tell which tags are missing, stale, extra, unsigned, or moved though immutable. Nothing is written.

    Manifests are asked for by HEAD, those of every image that a bundle or an index lists among them. Lost blobs and
    wrong bytes can't be seen so: transship verify --deep reads all of them.

    Exit codes: 0 all as it should be, 4 there is drift, 3 or 1 something couldn't be compared.
    """
    invocation.output.check_columns(_DRIFT)
    mirrors = Mirrors.asked_for(invocation, registry, store, flags)
    comparisons: list[Comparison] = []
    failures: list[TransshipError] = []
    for _, comparison in mirrors.compared(mirrors.shared(audit=True, thorough=True), failures):
        comparisons.append(comparison)
        _say(invocation, comparisons[-1])
    now = datetime.now(UTC)
    described = [comparison.to_dict() | {"lag_seconds": comparison.lag(now)} for comparison in comparisons]
    invocation.output.report(flags["report"], {"mirrors": described})
    invocation.output.table("Drift", _DRIFT, [row for comparison in comparisons for row in _rows(comparison)])
    if failures:
        raise Incomplete(
            f"{counted(len(failures), 'comparison')} failed",
            failures,
            some_done=any(
                tag.state is not TagState.FAILED for comparison in comparisons for _, tag in comparison.tags()
            ),
            hint="what could be compared is shown; check again when the cause is gone",
        )
    return ExitCode.DRIFT if any(comparison.drifted for comparison in comparisons) else ExitCode.DONE


def _say(invocation: Invocation, comparison: Comparison) -> None:
    warn_of_nothing(invocation.output, comparison)
    if comparison.uncompared:
        invocation.output.summary(f"{comparison.mirror}: couldn't be compared")
        return
    counts = {state: comparison.count(state) for state in TagState}
    parts = [f"{count} {state.value}" for state, count in counts.items() if count or state is TagState.IN_PLACE]
    if comparison.extra:
        parts.append(f"{comparison.extra} extra")
    if comparison.too_young:
        parts.append(f"{len(comparison.too_young)} too young")
    lag = comparison.lag(datetime.now(UTC))
    behind = f"; behind by {lag / 3600:.1f} hours" if lag else ""
    invocation.output.summary(f"{comparison.mirror}: {', '.join(parts)}{behind}")


def _rows(comparison: Comparison) -> list[list[str]]:
    rows = [
        [comparison.mirror, destination, tag.tag, tag.state.value, tag.reason]
        for destination, tag in comparison.tags()
        if tag.state is not TagState.IN_PLACE
    ]
    rows.extend(
        [comparison.mirror, destination.destination, tag, "extra", "the mirror doesn't take it"]
        for destination in comparison.destinations
        for tag in destination.extra
    )
    return rows
