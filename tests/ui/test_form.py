"""What a person does in the Prefect UI, done in Chromium: keeping a login, filling the form, reading the report."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.htpasswd import PASSWORD, USER, write_htpasswd
from tests.support.browser import Browser
from tests.support.prefect_server import PrefectServer, deploy
from tests.support.shop import push_shop
from tests.support.waiting import until

pytestmark = pytest.mark.optional

_WIDTHS = "return [...document.images].filter(one => one.alt.startsWith('Bytes')).map(one => one.naturalWidth)"
"""Of the pictures that are really drawn."""


@pytest.fixture(scope="module")
def served(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The deployments and the block type of this project on a server, and a worker."""
    deploy(prefect_server)
    prefect_server.cli("block", "register", "--module", "tasks.blocks")
    with prefect_server.worker("transship"):
        yield prefect_server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    folder = tmp_path_factory.mktemp("locked")
    with DockerRegistry(folder, htpasswd=write_htpasswd(folder / "htpasswd")) as server:
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser() as window:
        yield window


def shot(browser: Browser, name: str) -> None:
    """For a person's eyes, where UI_SCREENSHOTS names a folder."""
    if os.environ.get("UI_SCREENSHOTS"):
        browser.screenshot(Path(os.environ["UI_SCREENSHOTS"]) / f"{name}.png")


def field(title: str, inside: str, group: str = "") -> str:
    """Where an element of the form field with this title is; `group` is the title of the group that the field is in."""
    path = ""
    for name in filter(None, (group, title)):
        label = f"//label[normalize-space()='{name}' or normalize-space()='{name} (Optional)']"
        path += f"{label}/ancestor::*[.//fieldset][1]"
    return f"({path}//fieldset)[1]{inside}"


def fill(browser: Browser, title: str, text: str) -> None:
    browser.type(field(title, "//*[self::textarea or self::input]"), text)


def choose(browser: Browser, title: str, option: str) -> None:
    browser.click(field(title, "//button"))
    browser.click(f"//*[@role='option'][normalize-space()='{option}']")
    browser.see(field(title, f"//*[normalize-space()='{option}']"))


def add(browser: Browser, title: str, *texts: str) -> None:
    for number, text in enumerate(texts, 1):
        browser.click(field(title, "//button[normalize-space()='Add item']"))
        browser.type(field(title, f"/descendant::*[self::textarea or self::input][{number}]"), text)


def follow(browser: Browser, link: str, page: str) -> None:
    """Again where it had no effect: a list that is filtered draws itself anew below the click."""

    def followed() -> bool:
        if page not in browser.address:
            browser.click(link)
        return page in browser.address

    until("the page behind the link", followed, 20, every=2)


def submit(browser: Browser) -> None:
    """Again where it had no effect: while the page is still checking what was typed, it doesn't listen."""

    def submitted() -> bool:
        if browser.address.partition("?")[0].endswith("/run"):
            browser.click("//button[normalize-space()='Submit']")
        return not browser.address.partition("?")[0].endswith("/run")

    until("the page of the run", submitted, 20, every=2)


def test_a_relocation_is_filled_in_started_watched_and_read_about(
    served: PrefectServer, browser: Browser, registry: DockerRegistry, locked: DockerRegistry, repository: str
) -> None:
    shop = push_shop(registry.url, "ui/shop", seed=61)
    block = f"writer-{uuid.uuid4().hex[:8]}"

    browser.open(f"{served.ui}/v2/blocks/catalog/registry-credentials/create")
    browser.type("//label[normalize-space()='Name']/following::input", block)
    fill(browser, "Registry host", locked.host)
    fill(browser, "User name", USER)
    browser.type(field("Password", "//input[@type='password']"), PASSWORD)
    shot(browser, "block")
    browser.click("//button[normalize-space()='Save']")
    browser.see("//*[contains(text(),'Paste this snippet')]")
    shot(browser, "block-saved")

    browser.open(f"{served.ui}/v2/deployments")
    browser.type("//input[@placeholder='Search deployments']", "relocate")
    follow(browser, "//a[normalize-space()='relocate' and contains(@href,'/deployments/deployment/')]", "/deployment/")
    shot(browser, "deployment")

    browser.click("//button[normalize-space()='Run']")
    browser.click("//*[@role='menuitem'][normalize-space()='Custom run']")
    fill(browser, "Source", shop.reference)
    fill(browser, "Destination", f"{locked.host}/{repository}")
    add(browser, "Tags", "1.4.0", "latest")
    choose(browser, "Attached artifacts", "cosign")
    browser.press_escape()
    choose(browser, "Verify the result", "deep")
    add(browser, "Destination credentials", block)
    browser.click(field("Anonymous", "//button[@role='switch']", group="Destination registry"))
    shot(browser, "form-filled")
    submit(browser)
    browser.click("//*[normalize-space()='View run']")
    browser.see(f"//*[normalize-space()='bundle 1.4.0 -> {locked.host}/{repository}']")
    browser.see("//*[normalize-space()='Completed']", seconds=40)
    shot(browser, "run")
    browser.click("//*[@role='tab'][normalize-space()='Artifacts']")
    browser.click("//a[contains(@href,'/artifacts/')][contains(.,'relocation-')]")
    browser.click("//a[contains(@href,'/artifacts/artifact/')]")
    browser.see("//*[text()='Complete.']")
    shot(browser, "report")

    assert browser.run(_WIDTHS) == [690]
    assert f"user {USER} (block {block}), {locked.host}" in browser.text
    with httpx.Client(auth=(USER, PASSWORD)) as client:
        assert {"1.4.0", "latest"} <= set(locked.repository_tags(repository, client))
