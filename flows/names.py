"""Short names for flow runs."""

from __future__ import annotations

from oci.reference import ArchiveName, Reference, StoreName, parse_any


def short(reference: Reference) -> str:
    """`shop-bundle 1.4.0`"""
    name = str(reference.repository).rpartition("/")[2]
    return f"{name} {reference.digest[:19] if reference.digest else reference.tag}"


def short_source(source: str, *, is_file: bool) -> str:
    return source.rpartition("/")[2] if is_file else short(parse_any(source))


def place(store: StoreName) -> str:
    """`registry.corp.example/mirror/shop`, `oci:/srv/mirror` or `s3://archives/shop.tar`"""
    return ", ".join(store.locations) if isinstance(store, ArchiveName) else str(store)
