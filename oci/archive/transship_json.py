"""`transship.json`: the member that an archive has only when it isn't the whole: a delta, or a volume of several.
imgpkg passes it over."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidReference

NAME = "transship.json"
LIMIT = 16 << 20
"""Bytes of it that are read or written: some 150,000 blobs that a delta requires."""

_VERSION = 1
_MOST_VOLUMES = 99_999
_LONGEST_NAME = 4096
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_BLOB_LIMIT = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class TransshipJson:
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
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > LIMIT:
            raise InvalidDocument(
                f"{NAME} has {len(data)} bytes, and {LIMIT} are the limit", hint="make several deltas"
            )
        return data

    @classmethod
    def from_json(cls, data: bytes, where: str) -> TransshipJson:
        try:
            body = json.loads(data)
            if body["version"] != _VERSION:
                raise InvalidDocument(
                    f"{where}: {NAME} has version {body['version']!r}, which a later transship wrote",
                    hint="update transship",
                )
            volumes = _number(body.get("volumes", 1), 1, _MOST_VOLUMES)
            return cls(
                requires=tuple(
                    (parse_digest(one["digest"]), _number(one["size"], 0, _BLOB_LIMIT))
                    for one in body.get("requires", ())
                ),
                base=_name(body.get("base", "")),
                volume=_number(body.get("volume", 1), 1, volumes),
                volumes=volumes,
                whole=_fingerprint(body.get("whole", ""), required=volumes > 1),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidReference) as error:
            raise InvalidDocument(f"{where}: {NAME} is damaged: {error}") from error


def _number(value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"expected a number from {least} to {most}, got {str(value)[:40]!r}")
    return value


def _name(value: Any) -> str:
    """Where the blobs are that a delta requires, for messages: a repository, or a name of a file and a digest."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME or not (value.isprintable() or not value):
        raise ValueError(f"expected a printable name, got {str(value)[:40]!r}")
    return value


def _fingerprint(value: Any, *, required: bool) -> str:
    if not isinstance(value, str) or not (_FINGERPRINT.fullmatch(value) or (not value and not required)):
        raise ValueError(f"expected 64 hexadecimal digits, got {str(value)[:40]!r}")
    return value
