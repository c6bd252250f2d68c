"""Policies of signatures, and the decision on an image at a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from oci.reference import Reference, parse_any, parse_store
from oci.signatures.policy import Decision
from tests.support.relocating import session

TO = "registry.corp.example/mirror/web"


def written(folder: Path, *rules: dict[str, Any], default: str = "reject", **more: Any) -> str:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "default": default, "rules": list(rules), **more}))
    return str(path)


def decided(policy: str, reference: str, *, to: str = TO, signed: bool = False) -> Decision:
    named = parse_any(reference)
    with session() as one:
        source = one.source(named.repository)
        digest = source.get_manifest(named.identifier).digest
        return one.gate(policy, signed=signed).decide(
            source, Reference(named.repository, named.tag, digest), parse_store(to)
        )


def public_good_bundle(name: str) -> bytes:
    """A bundle that an instance of Sigstore's has made."""
    return (Path(__file__).parent / "public_good" / name).read_bytes()
