"""Takes runs of the flows itself, without a work pool and without a worker, until it is ended: `python serve.py`

The program needs the address of the Prefect server (PREFECT_API_URL). Its deployments are relocate/served,
mirror/served and so on; they have the forms, and a run needs nothing but this process.
"""

from __future__ import annotations

import asyncio

from prefect import aserve
from prefect.types.entrypoint import EntrypointType

from flows import describe, mirror, mirror_check, pull, push, relocate, tags, verify

FLOWS = (relocate, mirror, mirror_check, push, pull, tags, describe, verify)
RUNS_AT_A_TIME = 4


async def main() -> None:
    deployments = [
        await flow.ato_deployment(name="served", tags=["transship"], entrypoint_type=EntrypointType.MODULE_PATH)
        for flow in FLOWS
    ]
    await aserve(*deployments, limit=RUNS_AT_A_TIME)


if __name__ == "__main__":
    asyncio.run(main())
