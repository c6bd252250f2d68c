"""Small bytes read while planning and needed again while transferring: manifests, configs, lock layers."""

from __future__ import annotations

import threading
from collections import OrderedDict

from oci.digest import Digest

ITEM_LIMIT = 1 << 20
TOTAL_LIMIT = 32 << 20


class ByteCache:
    """Bytes by digest, least recently used out first. Its size has a bound, so memory doesn't grow with a plan."""

    def __init__(self, total: int = TOTAL_LIMIT) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._held = 0
        self._items: OrderedDict[Digest, bytes] = OrderedDict()

    def put(self, digest: Digest, data: bytes) -> None:
        """Bytes beyond ITEM_LIMIT aren't kept; `data` must have been verified."""
        if len(data) > ITEM_LIMIT:
            return
        with self._lock:
            self._held += len(data) - len(self._items.pop(digest, b""))
            self._items[digest] = data
            while self._held > self._total:
                _, dropped = self._items.popitem(last=False)
                self._held -= len(dropped)

    def get(self, digest: Digest) -> bytes | None:
        with self._lock:
            data = self._items.get(digest)
            if data is not None:
                self._items.move_to_end(digest)
            return data
