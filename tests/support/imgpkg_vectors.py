"""Images as imgpkg itself pushed them, byte for byte: what compatibility is measured against."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PushedImage:
    """`archive` is the layer's tar, `layer` the same compressed by imgpkg."""

    name: str
    diff_id: str
    config: bytes
    manifest: bytes
    layer: bytes

    @property
    def archive(self) -> bytes:
        return zlib.decompress(self.layer, wbits=31)


def _load() -> dict[str, PushedImage]:
    entries = json.loads(Path(__file__).with_suffix(".json").read_text())
    return {
        name: PushedImage(
            name=name,
            diff_id=f"sha256:{entry['diffID']}",
            config=entry["config_json"].encode(),
            manifest=entry["manifest_json"].encode(),
            layer=bytes.fromhex(entry["gz"]),
        )
        for name, entry in entries.items()
    }


PUSHED = _load()
"""V1 one file, V2 a folder, V3 a bundle with an empty ImagesLock, V4 no files, V5 the locations image of V3."""
