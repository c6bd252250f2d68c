"""A relocation of the command line, run as a flow: `transship copy ... --monitor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flows import be_patient, check_server_address
from oci.archive.options import ExportOptions
from oci.errors import Unavailable
from oci.registry.options import DEFAULT_CONCURRENCY
from oci.relocation.request import ReceiptOptions, RelocationRequest
from oci.relocation.run import Verify
from oci.relocation.session import Access

if TYPE_CHECKING:
    from oci.relocation.report import RelocationReport


def run(
    request: RelocationRequest,
    *,
    source: Access,
    destination: Access,
    concurrency: int = DEFAULT_CONCURRENCY,
    verify: str = "none",
    tarball: ExportOptions | None = None,
    resume: bool = False,
    receipts: ReceiptOptions | None = None,
) -> RelocationReport:
    """Runs `request` as the flow `relocate` on the Prefect server of PREFECT_API_URL, or, without one, on a server
    that lives as long as this call (some 15 seconds to start it the first time).

    `source` and `destination` are used as they are: credentials stay in this process and reach neither the parameters
    nor the server. `verify` is "none", "head" or "deep". `tarball` says how an archive that is the destination is to
    be, and `resume` goes on with an unfinished one; `receipts` what is left in writing. Progress and the address of the
    run are logged to standard error. Ctrl-C stops it within seconds.

    Raises InvalidInput for a PREFECT_API_URL that is no address, and what the flow raises: RelocationIncomplete (an
    Incomplete with `report`) or another TransshipError.
    """
    # Prefect reads these when it is imported. A copy must not phone home unasked; who wants that sets them.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    be_patient()
    # A server that ends with the command complains about what it would have liked to do still.
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    check_server_address()

    from flows.parameters.relocate import RelocateParameters, TarballOptions  # noqa: PLC0415 - Prefect takes a second
    from flows.relocate import relocate_sync  # noqa: PLC0415
    from tasks.run import reached_by  # noqa: PLC0415

    archive = TarballOptions(export=tarball, resume=resume) if tarball else None
    more = {"concurrency": concurrency, "verify": Verify(verify), "tarball": archive}
    parameters = RelocateParameters.of(request, **more, receipts=receipts or ReceiptOptions())
    with reached_by(source=source, destination=destination):
        try:
            return relocate_sync(parameters)
        except RuntimeError as error:  # Prefect's own, for a server that doesn't answer
            if "Failed to reach API" not in str(error):
                raise
            raise Unavailable(
                str(error),
                store="Prefect server",
                operation="running the flow",
                hint="is PREFECT_API_URL right, and the server running?",
            ) from error
