"""Brings bundles to a registry, as a program would: `python release.py REGISTRY/PREFIX BUNDLE...`

Each goes to a repository of its own name below the prefix. One that fails doesn't stop the others; the exit code is 1
then, and what is missing is printed with its cause.
"""

from __future__ import annotations

import asyncio
import sys

from flows import RelocationIncomplete, RelocationReport, Verify, relocate
from oci.errors import TransshipError


async def release(bundle: str, prefix: str) -> RelocationReport:
    name = bundle.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return await relocate(source=bundle, destination=f"{prefix}/{name}", verify=Verify.HEAD)


async def main(prefix: str, bundles: list[str]) -> int:
    complete = True
    for bundle in bundles:
        try:
            report = await release(bundle, prefix)
        except RelocationIncomplete as error:
            complete = False
            print(f"{bundle}: {error.report}")
            for failure in error.report.failures:
                print(f"  {failure.image}: {failure.error}")
        except TransshipError as error:
            complete = False
            print(f"{bundle}: {error}")
        else:
            print(f"{bundle}: {report}")
    return 0 if complete else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} REGISTRY/PREFIX BUNDLE...")
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
