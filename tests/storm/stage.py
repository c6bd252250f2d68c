"""Where a trial is played: two registries of one kind, a proxy before each, and a shop in the first."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import httpx

from oci.relocation.session import Session
from tests.faults.proxy import Fault, FaultProxy
from tests.storm.walk import Walker
from tests.support import content
from tests.support.content import Content
from tests.support.pruning import referrers_index
from tests.support.relocating import anonymous
from tests.support.waiting import until

SIDES = ("source", "destination")
_names = itertools.count(1)

IN_A_HURRY = {
    "retries": 2,
    "retry_budget": 3.0,
    "connect_timeout": 2.0,
    "header_timeout": 1.0,
    "idle_timeout": 0.6,
    "minimum_rate": 200,
}
"""Stalls and trickles cost a second or two."""


class Stage:
    """Of one thread. `source` and `destination` are the proxies; `walkers` see past them."""

    def __init__(self, ports: dict[str, int], folder: Path) -> None:
        self._ports = ports
        self._stack = ExitStack()
        self.folder = folder
        self.proxies: dict[str, FaultProxy] = {}
        self.walkers: dict[str, Walker] = {}
        self.results: dict[str, object] = {}
        """What each operation gives without faults, where that is how it is judged."""
        self.requests: dict[str, dict[str, list[tuple[str, str]]]] = {}
        """(method, path) of each side that each operation sends without faults."""
        self.in_a_hurry = False
        """How what isn't done in the session of a trial is to be done: with short time-outs?"""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.web = content.image(1, layers=(content.layer(1), content.noise(2, 150_000)))
        self.tools = content.index([content.image(3), content.image(4)], ["linux/amd64", "linux/arm64"])
        self.old = content.image(5)
        self.signature = content.signature(self.web)
        self.sbom = content.artifact(6, subject=self.web)
        self.bundles: dict[str, Content] = {}
        listed: dict[str, list[str]] = {}
        for side in SIDES:
            proxy = self._stack.enter_context(FaultProxy(self._ports[side]))
            self.proxies[side] = proxy
            url = f"http://127.0.0.1:{self._ports[side]}"
            self._stack.callback(self.walkers.setdefault(side, Walker(url, listed)).http.close)
            self.bundles[side] = self._fill(url, proxy.host)
            listed[self.bundles[side].digest] = [self.web.digest, self.tools.digest]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fill(self, url: str, host: str) -> Content:
        references = []
        for name, one in (("web", self.web), ("tools", self.tools)):
            pinned = content.push(url, f"shop/{name}", one, "v1")
            references.append(f"{host}/{pinned.partition('/')[2]}")
        content.push(url, "shop/web", self.tools, "v2")
        content.push(url, "shop/web", self.signature, content.signature_tag(self.web))
        content.push(url, "shop/web", self.sbom)
        if httpx.get(f"{url}/v2/shop/web/referrers/{self.web.digest}").status_code == 404:
            content.push(url, "shop/web", referrers_index(self.sbom), f"sha256-{self.web.hex}")
        bundle = content.bundle(references)
        content.push(url, f"shop/{host.rpartition(':')[2]}", bundle, "v1")
        content.push(url, "shop/whole", self.web, "v1")
        content.push(url, "shop/whole", self.tools, "v2")
        return bundle

    def at(self, side: str, repository: str) -> str:
        return f"{self.proxies[side].host}/{repository}"

    def bundle_at(self, side: str) -> str:
        """The reference of the bundle; the registry may have bundles of other stages."""
        return f"{self.at(side, 'shop')}/{self.proxies[side].port}:v1"

    def url(self, side: str) -> str:
        return f"http://127.0.0.1:{self._ports[side]}"

    def fresh(self) -> str:
        """The name of a repository, or of a file, that no other trial has."""
        return f"trial{next(_names)}"

    def session(self, *, hurry: bool, **settings: object) -> Session:
        self.in_a_hurry = hurry
        access = anonymous(**{"state": False, **(IN_A_HURRY if hurry else {}), **settings})
        return Session(source=access, destination=access, concurrency=4)

    def calm(self) -> None:
        for proxy in self.proxies.values():
            proxy.rules.clear()
            proxy.seen.clear()
            if proxy.refusing:
                until("the proxy listens again", partial(_listens, proxy), every=0.02)

    def storm(self, side: str, fault: Fault) -> None:
        self.proxies[side].rules.append(fault)

    def seen(self, side: str) -> Iterator[tuple[str, str]]:
        return ((method, path) for _, method, path in list(self.proxies[side].seen))

    def expected_blobs(self) -> set[str]:
        contents = (self.web, self.tools, *self.bundles.values(), self.signature, self.sbom)
        return {content.digest_of(blob.data) for one in contents for part in one.everything() for blob in part.blobs}

    def arrived(self, name: str) -> set[str]:
        """The blobs of the shop that a repository of the destination has."""
        walker = self.walkers["destination"]
        return {digest for digest in self.expected_blobs() if walker.has_blob(name, digest)}

    def sent(self) -> set[str]:
        """The blobs that were sent to the destination, by the requests that reached it since the last calm."""
        asked = [unquote(path) for method, path in self.seen("destination") if method in ("PUT", "POST")]
        return {found.group(1) for path in asked if (found := re.search(r"[?&]digest=(sha256:[0-9a-f]{64})", path))}


def _listens(proxy: FaultProxy) -> bool:
    return not proxy.refusing
