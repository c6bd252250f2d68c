"""Has a worker do it: starts the deployment `relocate` and waits for the end: `python trigger.py BUNDLE DESTINATION`

The program needs the address of the Prefect server (PREFECT_API_URL) and no credentials of a registry: the worker has
them, or finds them in blocks.
"""

from __future__ import annotations

import asyncio
import sys

from prefect.deployments import arun_deployment

from flows import RelocateParameters


async def main(bundle: str, destination: str) -> int:
    parameters = RelocateParameters(source=bundle, destination=destination)
    run = await arun_deployment("relocate/relocate", parameters=parameters.to_dict())
    state = run.state
    if state is None or not state.is_completed():
        print(f"{run.name}: {state.message if state else 'no state'}")
        return 1
    print(f"{run.name}: done")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} BUNDLE DESTINATION")
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
