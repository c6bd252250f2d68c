"""What a prune is to keep, as a value that a task can be given, and what it means now."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.reader import read_config
from oci.mirror.run import opened
from oci.mirror.selection import keep_for
from oci.prune.keep import Keep
from oci.reference import parse_store
from oci.relocation.session import Access, Session
from tasks.access import OneSided, Side


class Policy(BaseModel):
    """`keep` is a Keep's `to_dict`; `mirrors` the path of a file of mirrors on the machine of the run, or empty."""

    keep: dict[str, Any]
    mirrors: str = ""
    vanished: bool = True

    async def now(self, run: OneSided, destination: str) -> Keep:
        """With what all mirrors to the destination take at this moment. Raises what reading them and their sources
        raises."""
        keep = Keep.from_dict(self.keep)
        if not self.mirrors:
            return keep
        config = await run.in_thread(read_config, self.mirrors)
        names = dict.fromkeys(one.credentials for one in config.registries.values() if one.credentials)
        side = Side(credentials=(*run.side.credentials, *names), anonymous=run.side.anonymous)
        reached = {name: await side.access(name) for name in ("source", "destination")}
        return keep.and_also(await run.in_thread(self._mirrored, config, destination, reached, run))

    def _mirrored(self, config: MirrorsConfig, destination: str, reached: dict[str, Access], run: OneSided) -> Keep:
        def open_mirror(mirror: Mirror) -> Session:
            return opened(config, [mirror], lambda name, _: reached[name], run.cancel)

        return keep_for(config, parse_store(destination), open_mirror, vanished=self.vanished)
