"""What a person does in the Prefect UI, done in Chromium in both of its versions: keeping a login, filling a form,
watching a run, reading reports, approving a prune. With UI_SCREENSHOTS=docs/pictures it makes the pictures of the book.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.registry.options import RegistryOptions
from tasks.artifacts.report import OVERVIEW, artifact_key
from tests.servers.docker_registry import DockerRegistry
from tests.servers.htpasswd import PASSWORD, USER, write_htpasswd
from tests.support.browser import RUN_SECONDS, Browser
from tests.support.content import image, layer, push
from tests.support.flow_runs import is_over, start_run, state_of
from tests.support.prefect_server import PrefectServer, deploy, settings_for
from tests.support.shop import push_shop
from tests.support.slow_link import SlowLink
from tests.support.waiting import until
from tests.ui.forms import Newer, Older

pytestmark = pytest.mark.optional

_WIDTHS = "return [...document.images].filter(one => one.alt.startsWith('Bytes')).map(one => one.naturalWidth)"
"""Of the pictures that are really drawn."""
_TIMES = """
const lines = cell => {
    const range = document.createRange()
    range.selectNodeContents(cell)
    return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size
}
const times = [...document.querySelectorAll('td')].filter(cell => /\\d:\\d\\d\\s+UTC$/.test(cell.innerText))
const sticksOut = table => getComputedStyle(table.parentElement).overflowX === 'visible'
    && table.scrollWidth > table.parentElement.clientWidth
const wide = [...document.querySelectorAll('table')].filter(sticksOut)
return [Math.max(...times.map(lines)), wide.length]
"""
"""The most lines of a time in a table, and how many tables lie over what is beside their column."""


@pytest.fixture(scope="module")
def served(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The deployments and the block type of this project on a server, and a worker."""
    deploy(prefect_server)
    prefect_server.cli("block", "register", "--module", "tasks.blocks")
    with prefect_server.worker("transship"), settings_for(prefect_server):
        yield prefect_server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    folder = tmp_path_factory.mktemp("locked")
    with DockerRegistry(folder, htpasswd=write_htpasswd(folder / "htpasswd")) as server:
        yield server


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser(width=1200, height=860) as window:
        yield window


@pytest.fixture(params=[Newer, Older], ids=["newer", "older"])
def ui(request: pytest.FixtureRequest, browser: Browser) -> Newer:
    form: type[Newer] = request.param
    return form(browser)


def shot(ui: Newer, name: str) -> None:
    """For a person's eyes, where UI_SCREENSHOTS names a folder."""
    if os.environ.get("UI_SCREENSHOTS"):
        ui.browser.screenshot(Path(os.environ["UI_SCREENSHOTS"]) / f"{name}-{ui.name}.png")


def open_page(ui: Newer, server: PrefectServer, path: str) -> None:
    ui.browser.open(f"{server.ui}{ui.path}{path}")


def submit(ui: Newer, server: PrefectServer, deployment: str) -> dict[str, Any]:
    """Submits the form and opens the page of its run: the note that leads there goes by itself, on a busy machine
    before a click."""
    query = {"deployments": {"id": {"any_": [deployment]}}}

    def runs() -> dict[str, dict[str, Any]]:
        return {run["id"]: run for run in server.request("POST", "/flow_runs/filter", query)}

    before = set(runs())
    ui.submit(lambda: set(runs()) > before)
    (run,) = (run for key, run in runs().items() if key not in before)
    open_page(ui, server, f"/runs/flow-run/{run['id']}")
    return run


def artifact(server: PrefectServer, key: str) -> str:
    """The path of the newest artifact of a key, as soon as there is one."""
    query = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    (newest,) = until(f"the artifact {key}", lambda: server.request("POST", "/artifacts/filter", query))
    return f"/artifacts/artifact/{newest['id']}"


def mirrored(source: DockerRegistry, destination: DockerRegistry, repository: str) -> dict[str, Any]:
    """The configuration of one mirror, named as its repository."""
    places = {
        "source": {"repository": f"{source.host}/{repository}"},
        "destinations": [{"repository": f"{destination.host}/mirror/{repository}"}],
    }
    return {"version": 1, "mirrors": [{"name": repository.replace("/", "-"), **places}]}


def test_a_login_is_kept_and_a_relocation_is_filled_in_started_watched_and_read_about(
    served: PrefectServer, ui: Newer, registry: DockerRegistry, locked: DockerRegistry, repository: str
) -> None:
    shop = push_shop(registry.url, f"ui/{ui.name}", seed=61)
    block = f"writer-{uuid.uuid4().hex[:8]}"
    browser = ui.browser

    newer = Newer(browser)  # the older one shows a password while it is typed
    open_page(newer, served, "/blocks/catalog/registry-credentials/create")
    browser.type("//label[normalize-space()='Name']/following::input", block)
    newer.fill("Registry host", locked.host)
    newer.fill("User name", USER)
    browser.type(newer.field("Password", "//input[@type='password']"), PASSWORD)
    browser.click("//button[normalize-space()='Save']")
    browser.see("//*[contains(text(),'Paste this snippet')]")

    (deployment,) = served.request("POST", "/deployments/filter", {"deployments": {"name": {"any_": ["relocate"]}}})
    open_page(ui, served, f"/deployments/deployment/{deployment['id']}/run")
    ui.fill("Source", shop.reference)
    shot(ui, "form")
    ui.fill("Destination", f"{locked.host}/{repository}")
    ui.add("Tags", "1.4.0")
    ui.add("Tags", "latest", 2)
    ui.choose("Verify the result", "deep")
    ui.choose_block("Destination credentials", block)
    shot(ui, "form-filled")
    submit(ui, served, deployment["id"])
    browser.see(f"//*[normalize-space()='bundle 1.4.0 -> {locked.host}/{repository}']", RUN_SECONDS)
    ui.see_state("Completed")
    shot(ui, "run")
    open_page(ui, served, artifact(served, artifact_key("relocation", f"{locked.host}/{repository}")))
    browser.see("//*[normalize-space()='Complete.']")
    shot(ui, "report")
    until("the picture", lambda: browser.run(_WIDTHS) == [690])
    browser.read(f"user {USER} (block {block}), {locked.host}")

    browser.follow("//a[normalize-space()='All mirrors and the last runs']", f"/artifacts/key/{OVERVIEW}")
    browser.click("//a[contains(@href,'/artifacts/artifact/')]")
    browser.see("//*[normalize-space()='Other runs']")
    browser.read(f"{shop.reference} → {locked.host}/{repository}")
    with httpx.Client(auth=(USER, PASSWORD)) as client:
        assert {"1.4.0", "latest"} <= set(locked.repository_tags(repository, client))


def test_a_group_of_options_is_opened_and_filled(
    served: PrefectServer, browser: Browser, registry: DockerRegistry, repository: str
) -> None:
    ui = Newer(browser)
    shop = push_shop(registry.url, "ui/group", seed=62)
    (deployment,) = served.request("POST", "/deployments/filter", {"deployments": {"name": {"any_": ["relocate"]}}})

    open_page(ui, served, f"/deployments/deployment/{deployment['id']}/run")
    ui.fill("Source", shop.reference)
    ui.fill("Destination", f"{registry.host}/{repository}")
    ui.switch_in_group("Destination registry", "Anonymous")
    run = submit(ui, served, deployment["id"])
    browser.see(f"//*[normalize-space()='bundle 1.4.0 -> {registry.host}/{repository}']", RUN_SECONDS)

    # The page sends what it has drawn by then: the field that was switched, or every field of the group.
    assert RegistryOptions.read(run["parameters"]["destination_registry"]) == RegistryOptions(anonymous=True)
    ui.see_state("Completed")


def test_a_prune_waits_and_is_approved(
    served: PrefectServer, ui: Newer, registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, image(1), "1.0")
    push(registry.url, repository, image(2), "2.0")
    place = f"{registry.host}/{repository}"
    run = start_run("prune", {"destination": place, "keep": {"tags": ["2.0"]}})
    until("the run waits", lambda: state_of(run) == "Suspended")

    open_page(ui, served, f"/runs/flow-run/{run}")
    ui.see_state("Suspended")
    ui.resume()
    ui.browser.see("//*[contains(text(),'1 manifest to delete')]")
    ui.switch("Delete")
    ui.fill("Note", "release 1 is retired")
    shot(ui, "approval")
    ui.answer()
    until("the end of the run", lambda: is_over(run))

    assert state_of(run) == "Completed"
    assert registry.repository_tags(repository) == ["2.0"]
    open_page(ui, served, artifact(served, artifact_key("prune", place)))
    ui.browser.see("//*[contains(text(),'release 1 is retired')]")


def test_a_running_run_shows_its_progress(
    served: PrefectServer, ui: Newer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    with SlowLink(registry.host) as link:
        for number in range(3):
            seed = number + 10 * len(ui.path)  # bytes that no other run has brought there, for those are mounted
            push(registry.url, repository, image(seed, layers=[layer(seed, 1 << 20)]), f"1.{number}")
        link.bytes_per_second = 32 << 10
        config = mirrored(registry, other_registry, repository)
        config["mirrors"][0]["source"]["repository"] = f"{link.address}/{repository}"
        run = start_run("mirror", {"config": config})
        page = artifact(served, artifact_key("progress", f"mirror-{config['mirrors'][0]['name']}"))
        open_page(ui, served, f"/runs/flow-run/{run}")
        ui.see_state("Running")
        ui.browser.see("//*[contains(.,'3 changed, 0 unchanged')]", RUN_SECONDS)
        ui.tab("Artifacts")
        ui.see_listed("progress-mirror-")
        ui.browser.run("window.scrollTo(0, 0); document.querySelector('main')?.scrollTo(0, 0)")
        shot(ui, "running")
        link.bytes_per_second = 0
        until("the end of the run", lambda: is_over(run))

    open_page(ui, served, page)
    ui.browser.see("//*[contains(normalize-space(),'100%')]")


def test_a_failure_is_its_cause_and_its_next_step_and_the_history_shows_it(
    served: PrefectServer, ui: Newer, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, image(5), "1.0")
    config = mirrored(registry, other_registry, repository)
    name = config["mirrors"][0]["name"]
    missing = mirrored(registry, other_registry, repository)
    missing["registries"] = {other_registry.host: {"credentials": "no-such-block"}}
    for parameters, end in ((config, "Completed"), (missing, "Failed"), (config, "Completed")):
        run = start_run("mirror", {"config": parameters})
        until("the end of the run", partial(is_over, run))
        assert state_of(run) == end
        if end == "Failed":
            open_page(ui, served, artifact(served, artifact_key("mirror", name)))
            ui.browser.see("//*[normalize-space()='Next step:']")
            ui.browser.read("make it in the Prefect UI (Blocks, +, Registry Credentials)")
            shot(ui, "failed")

    open_page(ui, served, artifact(served, artifact_key("history", name)))
    ui.browser.see(f"//*[normalize-space()='Last runs of {name}']")
    until("the picture", lambda: ui.browser.run(_WIDTHS) == [690])
    shot(ui, "history")
    open_page(ui, served, artifact(served, OVERVIEW))
    ui.browser.see(f"//a[normalize-space()='{name}']")
    lines, too_wide = ui.browser.run(_TIMES)
    assert lines in {1, 2}
    assert not too_wide
    shot(ui, "overview")
