"""How a flow run reaches the registries of one side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from prefect.logging import get_run_logger

from oci.registry.credentials.chain import Credentials, default_credentials
from oci.registry.options import RegistryOptions
from oci.relocation.session import Access
from tasks.blocks import load_credentials, load_s3


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """How the registries of one side are reached. Credentials are names of Registry Credentials blocks; registries
    that none of them covers use the environment and, unless `anonymous`, the docker config of the machine."""

    settings: RegistryOptions = field(default_factory=RegistryOptions)
    credentials: tuple[str, ...] = ()
    anonymous: bool = False
    s3_store: str = ""
    """Name of an S3 Store block; without one, the environment says how object stores are reached."""

    async def access(self, name: str) -> Access:
        """`name` is "source" or "destination"."""
        blocks = await load_credentials(self.credentials)
        warn = get_run_logger().warning
        found = await asyncio.to_thread(default_credentials, side=name, anonymous=self.anonymous, warn=warn)
        s3 = await load_s3(self.s3_store)
        return Access(default=self.settings, credentials=Credentials([blocks, found]), s3=s3)
