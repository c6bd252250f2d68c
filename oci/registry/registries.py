"""All registries of one side, each with one transport that its repositories share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from oci.cancel import CancelToken
from oci.meter import Meter
from oci.reference import Repository
from oci.registry.capabilities import Capabilities
from oci.registry.credentials.chain import Credentials
from oci.registry.http.transport import Transport
from oci.registry.options import RegistryOptions
from oci.registry.repository import RegistryRepository


class Registries:
    """Opens repositories; `settings` is asked once for each registry host. Use as a context manager."""

    def __init__(
        self,
        *,
        side: str,
        settings: Callable[[str], RegistryOptions],
        credentials: Credentials,
        meter: Meter,
        cancel: CancelToken,
    ) -> None:
        self._side = side
        self._settings = settings
        self._credentials = credentials
        self._meter = meter
        self._cancel = cancel
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Transport, Capabilities]] = {}

    def repository(self, name: Repository) -> RegistryRepository:
        transport, capabilities = self._of(name.registry)
        return RegistryRepository(transport, name, capabilities)

    def transport(self, registry: str) -> Transport:
        return self._of(registry)[0]

    def _of(self, registry: str) -> tuple[Transport, Capabilities]:
        with self._lock:
            known = self._known.get(registry)
            if known is None:
                transport = Transport(
                    registry,
                    settings=self._settings(registry),
                    credentials=self._credentials,
                    side=self._side,
                    meter=self._meter,
                    cancel=self._cancel,
                )
                known = self._known[registry] = (transport, Capabilities())
            return known

    def close(self) -> None:
        with self._lock:
            for transport, _ in self._known.values():
                transport.close()
            self._known.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
