"""What a prune did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oci.digest import Digest
from oci.meter import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A manifest that is gone, and the tags that went with it."""

    digest: Digest
    kind: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A manifest or tag of the plan that is there still, and why."""

    subject: str
    reason: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """Sizes in bytes. `skipped` were spared, because something has changed since the plan was made; `refused` are tags
    that the registry can't take away alone; `failed` could not be deleted."""

    destination: str
    deleted: tuple[Deleted, ...] = ()
    untagged: tuple[str, ...] = ()
    skipped: tuple[Left, ...] = ()
    refused: tuple[Left, ...] = ()
    failed: tuple[Left, ...] = ()
    gone: int = 0
    """Of the plan, what somebody else had deleted already."""
    waiting: int = 0
    """What is unwanted and not yet for as long as the grace period."""
    bytes_freed: int = 0
    """Of a layout folder, what the disk has got back of blobs, with the manifests. Of a registry, what it can free when
    it collects garbage, at most."""
    receipt: Receipt

    def to_dict(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "deleted": [{"digest": one.digest, "kind": one.kind, "tags": list(one.tags)} for one in self.deleted],
            "untagged": list(self.untagged),
            **{
                name: [
                    {"subject": one.subject, "reason": one.reason, "retryable": one.retryable}
                    for one in getattr(self, name)
                ]
                for name in ("skipped", "refused", "failed")
            },
            "gone": self.gone,
            "waiting": self.waiting,
            "bytes_freed": self.bytes_freed,
            "receipt": self.receipt.to_dict(),
        }
