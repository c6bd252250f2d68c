"""`transship receiver`"""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from flows import check_server_address
from flows.cli.click_ext import Invocation, Number, verb
from flows.cli.output import log_to_stderr
from oci.errors import InvalidInput
from oci.output import read_named

_TOKEN_LIMIT = 1 << 16
_TOKEN = "TRANSSHIP_RECEIVER_TOKEN"  # noqa: S105 - the name of the variable


@verb("receiver", "", "--host 0.0.0.0 --port 9000 --token-file token", "--port 0", service=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=Number(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
@click.option(
    "--token-file",
    default="",
    envvar=f"{_TOKEN}_FILE",
    help=f"File with the token that registries have to send; or the variable {_TOKEN}.",
)
@click.option(
    "--capacity",
    type=Number(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="Pushes kept while the Prefect server can't be reached; more are answered with 503.",
)
@click.option(
    "--journal",
    default="",
    help="File that keeps what was accepted until it is delivered, for a receiver that is killed. Without it, what "
    "waits is lost then.",
)
def receiver(invocation: Invocation, /, **flags: Any) -> None:
    """Turn what registries tell of pushes into Prefect events, for the triggers of mirrors.

    Registries post to http://HOST:PORT/notifications with the header "Authorization: Bearer TOKEN"; ?registry=HOST
    names the registry as mirrors do where it calls itself otherwise. docker-registry's notifications and Harbor's
    webhooks (default and CloudEvents) are understood. PREFECT_API_URL says where the events go.
    """
    token = _token(flags["token_file"])
    log_to_stderr(logging.getLogger("transship.receiver"), debug=invocation.output.debug)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "false")
    check_server_address(required=True)
    from flows.receiver.app import serve  # noqa: PLC0415
    from flows.receiver.outbox import Journal, Outbox  # noqa: PLC0415

    journal = Journal(flags["journal"]) if flags["journal"] else None
    outbox = Outbox(capacity=flags["capacity"], journal=journal)
    serve(host=flags["host"], port=flags["port"], token=token, outbox=outbox)


def _token(file: str) -> str:
    """Never from a flag, which all users of the machine see."""
    if not file:
        return os.environ.get(_TOKEN, "").strip()
    token = read_named(file, "reading the token file", limit=_TOKEN_LIMIT).decode("utf-8", "replace").strip()
    if not token:
        raise InvalidInput(f"the token file {file} is empty", hint="put a long random word into it")
    return token
