"""`transship.json`: the member that an archive has only when it isn't the whole: a delta, or a volume of several.
imgpkg passes it over."""

from __future__ import annotations

import json
from dataclasses import dataclass

from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidReference

NAME = "transship.json"
LIMIT = 64 << 20

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """`requires` are blobs that were left out because the other side has them, with their sizes in bytes, and `base`
    what says so; `volume` counts from 1 to `volumes`, and `whole` is the fingerprint of all volumes together."""

    requires: tuple[tuple[Digest, int], ...] = ()
    base: str = ""
    volume: int = 1
    volumes: int = 1
    whole: str = ""

    def to_json(self) -> bytes:
        body: dict[str, object] = {"version": _VERSION}
        if self.requires or self.base:
            body |= {"base": self.base, "requires": [{"digest": one, "size": size} for one, size in self.requires]}
        if self.volumes > 1:
            body |= {"volume": self.volume, "volumes": self.volumes, "whole": self.whole}
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Extra:
        try:
            body = json.loads(data)
            if body["version"] != _VERSION:
                raise InvalidDocument(
                    f"{where}: {NAME} has version {body['version']!r}, which a later transship wrote",
                    hint="update transship",
                )
            return cls(
                requires=tuple((parse_digest(one["digest"]), int(one["size"])) for one in body.get("requires", ())),
                base=str(body.get("base", "")),
                volume=int(body.get("volume", 1)),
                volumes=int(body.get("volumes", 1)),
                whole=str(body.get("whole", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError, InvalidReference) as error:
            raise InvalidDocument(f"{where}: {NAME} is damaged: {error}") from error
