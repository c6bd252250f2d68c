"""Runs mirrors and gives what failed a second chance: `python mirror_twice.py MIRRORS.YAML [NAME...]`

The second run looks at nothing but what failed before, which costs next to nothing when that is little.
"""

from __future__ import annotations

import asyncio
import sys

from flows import MirrorIncomplete, MirrorParameters, MirrorRunReport, mirror


async def attempt(parameters: MirrorParameters) -> MirrorRunReport:
    try:
        report: MirrorRunReport = await mirror(**parameters.to_dict())
    except MirrorIncomplete as error:
        return error.report
    return report


async def main(path: str, names: tuple[str, ...]) -> int:
    report = await attempt(MirrorParameters(path=path, names=names))
    print(report)
    if report.only:
        report = await attempt(MirrorParameters(path=path, names=names, only=tuple(report.only)))
        print(f"again, {len(report.mirrors)} mirrors:\n{report}")
    return 0 if report.succeeded else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} MIRRORS.YAML [NAME...]")
    sys.exit(asyncio.run(main(sys.argv[1], tuple(sys.argv[2:]))))
