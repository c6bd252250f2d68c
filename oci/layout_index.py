"""index.json of an image layout: the names. Several processes may write it at once; none loses another's entry."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from oci.atomic import replace_file
from oci.descriptor import OCI_INDEX, Descriptor
from oci.digest import Digest
from oci.errors import InvalidManifest
from oci.manifest import parse_manifest
from oci.reference import LayoutFolder

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_LIMIT = 64 << 20
"""Bytes of an index.json that is read: a layout that is a mirror's home may have many thousand entries."""


class LayoutIndex:
    """Reads are cached until the file changes."""

    def __init__(self, name: LayoutFolder, *, side: str) -> None:
        self._name = name
        self._side = side
        self._file = os.path.join(name.path, "index.json")
        self._lock = threading.Lock()
        self._cached: tuple[tuple[int, int, int], tuple[Descriptor, ...]] | None = None
        self._prepared = False

    def exists(self) -> bool:
        return os.path.isfile(self._file)

    def prepare(self) -> None:
        """Makes the folder a layout, if it isn't one yet."""
        if self._prepared:
            return
        os.makedirs(self._name.path, exist_ok=True)
        marker = os.path.join(self._name.path, "oci-layout")
        if not os.path.exists(marker):
            replace_file(marker, LAYOUT_FILE, 0o644)
        with self._locked():
            if not self.exists():
                replace_file(self._file, _render([]), 0o644)
        self._prepared = True

    def entries(self) -> tuple[Descriptor, ...]:
        """Empty where there is no layout yet."""
        try:
            status = os.stat(self._file)
        except FileNotFoundError:
            return ()
        mark = (status.st_mtime_ns, status.st_size, status.st_ino)
        with self._lock:
            if self._cached is None or self._cached[0] != mark:
                self._cached = (mark, self._read())
            return self._cached[1]

    def tags(self) -> set[str]:
        return {_tag_of(name) for entry in self.entries() if (name := entry.annotations.get(REF_NAME, ""))}

    def find(self, tag: str) -> Descriptor | None:
        """By the exact name; else by the tag of a full name, as other tools write them; else the only entry there is,
        which is `latest` when it has no name at all."""
        entries = self.entries()
        for entry in entries:
            if entry.annotations.get(REF_NAME) == tag:
                return entry
        for entry in entries:
            if entry.annotations.get(REF_NAME, "").endswith(f":{tag}"):
                return entry
        if tag == "latest" and len(entries) == 1 and REF_NAME not in entries[0].annotations:
            return entries[0]
        return None

    def put(self, descriptor: Descriptor, tag: str) -> None:
        """Lists a manifest under `tag`, which it takes from whatever had it; without one, lists it once."""
        entry = descriptor.to_dict()
        if tag:
            entry["annotations"] = {REF_NAME: tag}

        def change(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if not tag:
                return entries if any(_digest(one) == descriptor.digest for one in entries) else [*entries, entry]
            return [*(one for one in entries if _name(one) != tag), entry]

        self._change(change)

    def remove_tag(self, tag: str) -> None:
        self._change(lambda entries: [one for one in entries if _name(one) != tag])

    def remove_digest(self, digest: Digest) -> None:
        self._change(lambda entries: [one for one in entries if _digest(one) != digest])

    def _change(self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Reads, changes and replaces the file while nobody else does."""
        self.prepare()
        with self._locked():
            with open(self._file, "rb") as file:
                raw = file.read(INDEX_LIMIT + 1)
            self._parse(raw)
            before = json.loads(raw).get("manifests") or []
            after = change(before)
            if after != before:
                replace_file(self._file, _render(after), 0o644)

    def _read(self) -> tuple[Descriptor, ...]:
        with open(self._file, "rb") as file:
            return self._parse(file.read(INDEX_LIMIT + 1))

    def _parse(self, raw: bytes) -> tuple[Descriptor, ...]:
        try:
            return parse_manifest(raw, OCI_INDEX, limit=INDEX_LIMIT, children=None).children
        except InvalidManifest as error:
            raise InvalidManifest(f"{self._side} {self._name}: index.json: {error.message}".strip()) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer among all threads and processes. The lock is a file of its own: index.json is replaced."""
        with open(f"{self._file}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _tag_of(name: str) -> str:
    """`1.0` of `1.0`, and of `docker.io/library/web:1.0`."""
    tail = name.rpartition("/")[2]
    return tail.rpartition(":")[2] if "/" in name and ":" in tail else name


def _name(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(REF_NAME, ""))


def _digest(entry: dict[str, Any]) -> str:
    return str(entry.get("digest", ""))


def _render(entries: list[dict[str, Any]]) -> bytes:
    """In one order, so that the same content gives the same file."""
    ordered = sorted(entries, key=lambda one: (_name(one), _digest(one)))
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": ordered}, indent=1).encode()
