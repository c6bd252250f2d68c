"""Headless Chromium, driven through chromedriver's WebDriver protocol by plain HTTP."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from tests.servers.ports import free_port
from tests.support.prefect_server import stop
from tests.support.waiting import until

_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_BRING = "arguments[0].scrollIntoView({block: 'center'}); return arguments[0].getClientRects().length > 0"
SECONDS = 60.0
RUN_SECONDS = 240.0
"""For what a flow run does, which begins with a process of its own."""


class Refused(Exception):
    """What the driver said of a command: the element has gone, or something covers it."""


class Browser:
    """One window. Use as a context manager; nothing of it is left afterwards."""

    def __init__(self, *, width: int = 1400, height: int = 1000) -> None:
        self._size = f"--window-size={width},{height}"

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        port = free_port()
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        try:
            self._open()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._client.delete(self._session)
        finally:
            self._end()

    def _open(self) -> None:
        self._session = ""
        until("the browser's driver listens", self._listens, every=0.05)
        options = {"args": [*_QUIET, self._size, f"--user-data-dir={self._profile}"]}
        answer = self.post("/session", capabilities={"alwaysMatch": {"goog:chromeOptions": options}})
        self._session = f"/session/{answer['sessionId']}"

    def _listens(self) -> bool:
        try:
            self._client.get("/status")
        except httpx.TransportError:
            return False
        return True

    def _end(self) -> None:
        self._client.close()
        stop(self._driver)
        shutil.rmtree(self._profile, ignore_errors=True)

    def post(self, path: str, **body: Any) -> Any:
        return self._value(self._client.post(self._session + path, json=body))

    def get(self, path: str) -> Any:
        return self._value(self._client.get(self._session + path))

    def _value(self, answer: httpx.Response) -> Any:
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise Refused(value["message"])
        return value

    def open(self, address: str) -> None:
        self.post("/url", url=address)

    def press_escape(self) -> None:
        key = [{"type": what, "value": "\ue00c"} for what in ("keyDown", "keyUp")]
        self.post("/actions", actions=[{"type": "key", "id": "keys", "actions": key}])

    def run(self, script: str, *arguments: Any) -> Any:
        """JavaScript with `arguments`; `return` gives plain values."""
        return self.post("/execute/sync", script=script, args=list(arguments))

    def click(self, xpath: str, seconds: float = SECONDS) -> None:
        self._on_visible(xpath, seconds, lambda element: self.post(f"/element/{element[_ELEMENT]}/click"))

    def follow(self, xpath: str, ending: str) -> None:
        """Clicks on a link, and waits for an address with this ending, in the new window if the link opens one."""
        self.click(xpath)

        def is_there() -> bool:
            self.post("/window", handle=self.get("/window/handles")[-1])
            return self.address.partition("?")[0].endswith(ending)

        until(ending, is_there, SECONDS)

    def type(self, xpath: str, text: str, seconds: float = SECONDS) -> None:
        self._on_visible(xpath, seconds, lambda element: self.post(f"/element/{element[_ELEMENT]}/value", text=text))

    def see(self, xpath: str, seconds: float = SECONDS) -> None:
        """Waits until it is on the page."""
        self._on_visible(xpath, seconds, lambda element: None)

    def read(self, text: str, seconds: float = SECONDS) -> None:
        """Waits until the page has this text. What was seen may be gone a moment later: a page draws itself anew when
        more of what it shows arrives."""
        until(f"{text!r} on the page", lambda: text in self.text, seconds)

    def _on_visible(self, xpath: str, seconds: float, action: Callable[[dict[str, str]], object]) -> None:
        """On the first one that can be seen. Pages draw themselves anew at any time, so what failed is tried again."""
        deadline = time.monotonic() + seconds
        why = "it isn't there"
        while time.monotonic() < deadline:
            try:
                for element in self.post("/elements", using="xpath", value=xpath):
                    if self.run(_BRING, element):
                        action(element)
                        return
            except Refused as error:
                why = str(error)
            time.sleep(0.1)
        raise AssertionError(f"{xpath}: {why}\n{self.text}")

    @property
    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    @property
    def address(self) -> str:
        return str(self.get("/url"))

    def screenshot(self, path: Path) -> None:
        """The window as it is, in PNG."""
        path.write_bytes(base64.b64decode(self.get("/screenshot")))
