"""Which authorities the tests trust, and the programs that they start: one that signs nothing.

To read the hundred and forty of a machine takes 30 ms of CPU, and each client of httpx and of Prefect reads them anew,
also for plain http. Tests that speak TLS name the file of their own authority.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme

VARIABLE = "SSL_CERT_FILE"
_of_machine: dict[str, str] = {}


def trust_one(patch: pytest.MonkeyPatch, folder: Path) -> None:
    if VARIABLE in os.environ:
        _of_machine[VARIABLE] = os.environ[VARIABLE]
    file = folder / "one.pem"
    trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.write_to_path(file)
    patch.setenv(VARIABLE, str(file))


def for_prefect() -> dict[str, str]:
    """The same for a program of Prefect, which reads a setting of its own."""
    return {"PREFECT_API_SSL_CERT_FILE": os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def as_on_machine() -> dict[str, str]:
    """The environment of a program that speaks with servers elsewhere."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE} | _of_machine
