"""`--debug`: requests to registries on standard error, without anything secret."""

from __future__ import annotations

import logging
import sys


def show_requests() -> None:
    logger = logging.getLogger("transship.http")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
