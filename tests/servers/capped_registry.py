"""A registry that limits each of its actions, as ECR does: what is over the limit is answered 429 without Retry-After.

It keeps nothing: every blob is absent, every upload and every manifest is taken.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.http_server import LoopbackServer, QuietHandler

ECR = {
    "PutImage": 10.0,
    "InitiateLayerUpload": 100.0,
    "CompleteLayerUpload": 100.0,
    "BatchCheckLayerAvailability": 1000.0,
    "BatchGetImage": 2000.0,
}
_ACTIONS = [
    ("PUT", re.compile(r"/v2/.+/manifests/"), "PutImage"),
    ("POST", re.compile(r"/v2/.+/blobs/uploads/"), "InitiateLayerUpload"),
    ("PUT", re.compile(r"/v2/.+/blobs/uploads/"), "CompleteLayerUpload"),
    ("HEAD", re.compile(r"/v2/.+/blobs/"), "BatchCheckLayerAvailability"),
    ("HEAD", re.compile(r"/v2/.+/manifests/"), "BatchGetImage"),
]


class Bucket:
    """Tokens that come at a rate, one second's worth at most."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Handler(QuietHandler):
    def do_GET(self) -> None:
        owner: Any = self.server.owner  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        action = next((name for method, form, name in _ACTIONS if method == self.command and form.match(path)), "")
        if not owner.admit(action):
            self.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}')
        elif action == "InitiateLayerUpload":
            self.answer(202, Location=f"{path}1")
        elif self.command == "PUT":
            digest = parse_qs(urlsplit(self.path).query).get("digest", [""])[0]
            self.answer(201, **({"Docker_Content_Digest": digest} if digest else {}))
        else:
            self.answer(404)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815


class CappedRegistry(LoopbackServer):
    """`taken` lists the moments at which each action was done, `refused` counts what was over its limit."""

    handler = _Handler

    def __init__(self, caps: Mapping[str, float]) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._buckets = {action: Bucket(rate) for action, rate in caps.items()}
        self.taken: dict[str, list[float]] = {}
        self.refused: Counter[str] = Counter()

    def admit(self, action: str) -> bool:
        with self._lock:
            bucket = self._buckets.get(action)
            if bucket is not None and not bucket.take():
                self.refused[action] += 1
                return False
            self.taken.setdefault(action, []).append(time.monotonic())
            return True
