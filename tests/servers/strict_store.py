"""What the strict registry keeps: blobs, manifests, tags and upload sessions, in memory."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """digest → (media type, bytes)"""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Upload:
    repository: str
    data: bytearray = field(default_factory=bytearray)


class Store:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, Upload] = {}

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def add_blob(self, name: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        self.repository(name).blobs.add(digest)
        return digest

    def begin(self, name: str) -> str:
        session = secrets.token_hex(8)
        self.uploads[session] = Upload(name)
        return session

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        found = []
        for digest, (media_type, raw) in sorted(self.repository(name).manifests.items()):
            body = json.loads(raw)
            if (body.get("subject") or {}).get("digest") == subject:
                entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
                kind = body.get("artifactType") or (body.get("config") or {}).get("mediaType", "")
                if kind:
                    entry["artifactType"] = kind
                if body.get("annotations"):
                    entry["annotations"] = body["annotations"]
                found.append(entry)
        return found
