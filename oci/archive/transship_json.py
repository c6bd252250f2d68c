"""`transship.json`: the member that an archive has only when it isn't the whole, a delta or a volume of several, or
when it has a receipt. imgpkg passes it over."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from oci.descriptor import parse_json
from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidManifest, InvalidReference

NAME = "transship.json"
LIMIT = 16 << 20
"""Bytes of it that are read or written: some 150,000 blobs that a delta requires."""

_VERSION = 1


class _Blob(Struct):
    digest: str
    size: Annotated[int, Meta(ge=0, lt=1 << 53)]


class _Document(Struct):
    """The member as it is written. A name is for messages, and has nothing in it that a terminal obeys."""

    version: int
    base: Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")] = ""
    requires: tuple[_Blob, ...] = ()
    volume: Annotated[int, Meta(ge=1, le=99_999)] = 1
    volumes: Annotated[int, Meta(ge=1, le=99_999)] = 1
    whole: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    receipt: msgspec.Raw = msgspec.Raw()


class TransshipJson(Struct, frozen=True, kw_only=True):
    """`requires` are blobs that were left out because the other side has them, with their sizes in bytes, and `base`
    what says so; `volume` counts from 1 to `volumes`, and `whole` is the fingerprint of all volumes together.
    `receipt` is an in-toto statement about the archive (docs/reference/receipts.md), as JSON, in the first volume."""

    requires: tuple[tuple[Digest, int], ...] = ()
    base: str = ""
    volume: int = 1
    volumes: int = 1
    whole: str = ""
    receipt: bytes = b""

    def to_json(self) -> bytes:
        """Raises InvalidDocument beyond LIMIT."""
        body: dict[str, object] = {"version": _VERSION}
        if self.requires or self.base:
            body |= {
                "base": self.base,
                "requires": [{"digest": digest, "size": size} for digest, size in self.requires],
            }
        if self.volumes > 1:
            body |= {"volume": self.volume, "volumes": self.volumes, "whole": self.whole}
        if self.receipt:
            body["receipt"] = parse_json(self.receipt)
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > LIMIT:
            message = f"{NAME} has {len(data)} bytes, and {LIMIT} are the limit"
            raise InvalidDocument(message, hint="make several deltas")
        return data

    @classmethod
    def from_json(cls, data: bytes, where: str) -> TransshipJson:
        try:
            version = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("version", b"none")
            if bytes(version) != b"%d" % _VERSION:
                shown = bytes(version)[:40].decode(errors="replace")
                raise InvalidManifest(
                    f"{where}: {NAME} has version {shown}, which a later transship wrote", hint="update transship"
                )
            document = msgspec.json.decode(data, type=_Document)
            if document.volume > document.volumes or (document.volumes > 1 and not document.whole):
                raise ValueError(f"this is no volume {document.volume} of {document.volumes}")  # noqa: TRY301 - as all other damage
            requires = tuple((parse_digest(blob.digest), blob.size) for blob in document.requires)
        except (ValueError, RecursionError, InvalidReference) as error:
            raise InvalidManifest(f"{where}: {NAME} is damaged: {error}") from error
        return cls(
            requires=requires,
            base=document.base,
            volume=document.volume,
            volumes=document.volumes,
            whole=document.whole,
            receipt=bytes(document.receipt),
        )
