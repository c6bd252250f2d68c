"""Free loopback ports for servers that are told theirs."""

from __future__ import annotations

import random
import socket

_PORTS = range(12_000, 32_000)
"""Below those that Linux gives to connections (32768 to 60999): none is taken between the look and the start."""
_chance = random.SystemRandom()  # Hypothesis makes the common one begin anew, in each process alike
_given: set[int] = set()


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int, beside: int = 0) -> list[int]:
    """Ports that are free, and whose neighbours so many further on are. None is given twice in a process."""
    found: list[int] = []
    while len(found) < count:
        port = _chance.choice(_PORTS[: len(_PORTS) - beside])
        if not {port, port + beside} & _given and _is_free(port) and _is_free(port + beside):
            _given.update({port, port + beside})
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
