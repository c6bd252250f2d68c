"""Plans made up for tests that need no registry."""

from __future__ import annotations

from collections.abc import Iterable

from oci.descriptor import OCI_MANIFEST
from oci.digest import Digest, digest_of
from oci.reference import parse_store
from oci.relocation.plan import Plan, PlannedBlob, PlannedManifest, Role

_STORE = parse_store("registry.example/shop/web")


def digest(name: object) -> Digest:
    return digest_of(str(name).encode())


def plan_of(
    sizes: Iterable[int], *, present: Iterable[int] = (), destination: str = "registry.corp.example/shop"
) -> Plan:
    """One listed image of one blob for each size, numbered from 0; `present` are numbers of those already there."""
    there = set(present)
    sizes = list(sizes)
    return Plan(
        source="registry.example/shop/bundle:1.4.0",
        destination=parse_store(destination),
        root=None,
        manifests=tuple(
            PlannedManifest(
                digest=digest(number),
                media_type=OCI_MANIFEST,
                size=500,
                store=_STORE,
                role=Role.LISTED,
                blobs=(digest(f"blob {number}"),),
                present=number in there,
            )
            for number in range(len(sizes))
        ),
        blobs=tuple(
            PlannedBlob(
                digest=digest(f"blob {number}"),
                size=size,
                media_type="application/octet-stream",
                stores=(_STORE,),
            )
            for number, size in enumerate(sizes)
        ),
    )
