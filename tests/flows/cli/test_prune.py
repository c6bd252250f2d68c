"""`transship prune`: plan, review, approval, and what scripts see of it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import PROGRAM, transship
from tests.support.content import image, index, push
from tests.support.pruning import has, keep_alive, tags_of
from tests.support.waiting import until


@pytest.fixture
def shop(registry: DockerRegistry, repository: str) -> str:
    """Two versions; each an index of a platform of its own and one that both have."""
    for number, tag in ((1, "1.0"), (2, "2.0")):
        content = index([image(number), image(9)])
        push(registry.url, repository, content, tag, keep_alive(content))
    return f"{registry.host}/{repository}"


def test_a_plan_is_shown_and_nothing_is_deleted(shop: str, registry: DockerRegistry, repository: str) -> None:
    done = transship("prune", shop, "--keep-tag", "2.0")

    assert done.code == 0
    rows = [line.split("\t") for line in done.out.splitlines()]
    old = index([image(1), image(9)])
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("index", old.digest, "1.0, 1 with a digest in the name", "to delete"),
        ("image", image(1).digest, "-", "to delete"),
    ]
    *unknown, summary = done.err.splitlines()
    assert summary.startswith(f"{shop}: 2 manifests to delete, 3 manifests kept, at most ")
    assert [line.partition(": ")[0] for line in unknown] == ["Warning", "Warning"]
    assert "bundles in other repositories may list images of this one" in unknown[0]
    assert done.err.endswith("to free; nothing was deleted: --approve does that\n")
    assert has(registry.url, repository, old)
    document = json.loads(transship("prune", shop, "--keep", r"2\..*", "--plan", "--json").out)
    assert [row["state"] for row in document["Tables"][0]["Rows"]] == ["to delete", "to delete"]


@pytest.mark.parametrize("flag", ["--output", "--report"])
def test_no_output_takes_the_place_of_the_plan_that_is_approved(shop: str, tmp_path: Path, flag: str) -> None:
    plan = tmp_path / "plan.json"
    assert transship("prune", shop, "--keep-tag", "2.0", "--output", str(plan)).code == 0
    before = plan.read_bytes()

    done = transship("prune", "--approve", str(plan), flag, str(plan))

    assert done.code == 2
    assert f"{flag} would be written in the place of {plan}" in done.err
    assert plan.read_bytes() == before


def test_a_reviewed_plan_is_carried_out_exactly(
    shop: str, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    plan, report = tmp_path / "plan.json", tmp_path / "report.json"
    assert transship("prune", shop, "--keep-version", ">=2", "--output", str(plan)).code == 0
    push(registry.url, repository, image(5), "0.5")
    push(registry.url, repository, image(1), "hotfix")

    done = transship("prune", "--approve", str(plan), "--keep-tag", "hotfix", "--report", str(report))

    assert done.code == 0, done.err
    assert f"left: {image(1).digest}: something that is kept needs it now" in done.err
    assert "1 manifest deleted, 1 left, for something has changed" in done.err
    assert tags_of(registry.url, repository) >= {"0.5", "2.0", "hotfix"}
    assert "1.0" not in tags_of(registry.url, repository)
    written = json.loads(report.read_text())
    assert [one["tags"] for one in written["deleted"]] == [["1.0", keep_alive(index([image(1), image(9)]))]]
    again = transship("prune", "--approve", str(plan), "--keep-tag", "hotfix")
    assert (again.code, again.out) == (0, "")
    assert "0 manifests deleted, 1 gone already, 1 left" in again.err


def test_a_plan_that_keeps_nothing_on_purpose_does_so_when_it_is_approved(
    shop: str, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    plan = str(tmp_path / "plan.json")
    assert transship("prune", shop, "--keep-nothing", "--output", plan).code == 0

    done = transship("prune", "--approve", plan)

    assert done.code == 0, done.err
    assert tags_of(registry.url, repository) == set()


def test_approving_without_a_plan_makes_one(shop: str, registry: DockerRegistry, repository: str) -> None:
    done = transship("prune", shop, "--keep-latest", "1", "--approve")

    assert done.code == 0, done.err
    assert "2 manifests deleted" in done.err
    assert tags_of(registry.url, repository) == {"2.0", keep_alive(index([image(2), image(9)]))}


def test_a_grace_period_lasts_from_one_command_to_the_next(
    shop: str, registry: DockerRegistry, repository: str
) -> None:
    first = transship("prune", shop, "--keep-tag", "2.0", "--grace", "7d", "--approve")
    assert "0 manifests deleted, 2 within their grace period" in first.err
    assert transship("tag", "list", "-i", shop).out == "1.0\t\n2.0\t\n", "the note of it is hidden"
    again = ("prune", shop, "--keep-tag", "2.0", "--grace", "1s", "--approve")
    until("the end of the grace period", lambda: "2 manifests deleted" in transship(*again).err)
    assert tags_of(registry.url, repository) == {"2.0", keep_alive(index([image(2), image(9)]))}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "the policy is empty: everything would be deleted"),
        (["--keep-tag", "3.0"], 2, "the policy keeps nothing of what is in"),
        (["--keep", "("], 2, "is no regular expression"),
        (["--keep-version", "one"], 2, "no range of versions"),
        (["--keep-digest", "sha256:12"], 2, "is not a digest"),
        (["--keep-lock", "/nowhere.yml"], 2, "No such file"),
        (["--keep-tag", "2.0", "--grace", "7"], 2, "is no length of time"),
        (["--keep-tag", "2.0", "--keep-latest", "-1"], 2, "--keep-latest"),
        (["--keep-tag", "2.0", "--plan", "--approve"], 2, "can't both be given"),
        (["--keep-tag", "2.0", "--approve", "/nowhere.json"], 2, "reading the plan /nowhere.json"),
        (
            ["--keep-tag", "2.0", "--output", "/nowhere/plan.json"],
            2,
            "/nowhere/plan.json: checking that it can be written",
        ),
    ],
)
def test_what_can_not_be_meant_deletes_nothing(
    shop: str, registry: DockerRegistry, arguments: list[str], code: int, said: str
) -> None:
    before = len(registry.requests())

    done = transship("prune", shop, *arguments)

    assert done.code == code
    assert said in done.err.replace("\n  ", " ").replace("no such file", "No such file")
    assert not [one for one in registry.requests()[before:] if one.method == "DELETE"]


def test_a_plan_for_another_place_or_no_plan_at_all_is_refused(shop: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert transship("prune", shop, "--keep-tag", "2.0", "--output", str(plan)).code == 0

    other = transship("prune", "other.example/shop", "--approve", str(plan))
    assert (other.code, f"the plan is for {shop}, not for other.example/shop" in other.err) == (2, True)
    plan.write_text("{}")
    assert "prune plan version None" in transship("prune", "--approve", str(plan)).err
    assert "Expected what to prune" in transship("prune").err


def test_some_that_fail_end_with_3_and_name_them(shop: str, registry: DockerRegistry, repository: str) -> None:
    push(registry.url, repository, image(7), "0.7")
    with FaultProxy(registry.port, Fault(method="DELETE", path=image(7).hex, status=409)) as proxy:
        done = transship("prune", f"{proxy.host}/{repository}", "--keep-tag", "2.0", "--approve")

    assert done.code == 3
    assert "2 manifests deleted, 1 failed" not in done.out
    assert f"{image(7).digest} (0.7)" in done.err
    assert "1 failed" in done.err


def test_killed_in_the_middle_no_tag_shows_something_incomplete_and_the_next_run_ends_it(
    registry: DockerRegistry, repository: str
) -> None:
    for number in range(6):
        push(registry.url, repository, index([image(20 + number * 2), image(21 + number * 2)]), f"0.{number}")
    push(registry.url, repository, image(19), "1.0")
    everything = [one for number in range(6) for one in (image(20 + number * 2), image(21 + number * 2))]
    with FaultProxy(registry.port, Fault(method="DELETE", first=2, delay=0.3)) as proxy:
        arguments = ["prune", f"{proxy.host}/{repository}", "--keep-tag", "1.0", "--concurrency", "1", "--approve"]
        process = subprocess.Popen([str(PROGRAM), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("nine deletions", lambda: proxy.count("DELETE", "manifests") >= 9, every=0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()

    left = [one for one in everything if has(registry.url, repository, one)]
    assert left, "killed before the end"
    for tag in tags_of(registry.url, repository):
        if tag.startswith("0."):
            number = int(tag.partition(".")[2])
            assert all(has(registry.url, repository, one) for one in everything[number * 2 : number * 2 + 2])
    done = transship("prune", f"{registry.host}/{repository}", "--keep-tag", "1.0", "--approve")
    assert done.code == 0, done.err
    assert not [one for one in everything if has(registry.url, repository, one)], "untagged children are remembered"
    assert tags_of(registry.url, repository) == {"1.0"}


def test_what_mirrors_take_is_kept_and_they_say_how_their_registries_are_reached(
    shop: str, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    for number, tag in ((1, "1.0"), (2, "2.0"), (3, "2.1"), (4, "old")):
        push(other_registry.url, repository, image(number), tag)
    target = f"{other_registry.host}/{repository}"
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(
        "version: 1\nmirrors:\n"
        f"- name: shop\n  source: {{repository: {shop}}}\n  destinations: [{{repository: {target}}}]\n"
        "  tags: [{semver: ['*'], latest: 1}]\n"
        f"- name: far\n  source: {{repository: {registry.host}/no/such}}\n"
        "  destinations: [{repository: a.example/bb}]\n"
    )

    plan = transship("prune", target, "-f", str(mirrors), "--output", str(tmp_path / "plan.json"))
    assert plan.code == 0, plan.err
    assert {line.split("\t")[2] for line in plan.out.splitlines()} == {"1.0", "old"}

    strict = transship("prune", target, "-f", str(mirrors), "--keep-vanished=false", "--column", "tags")
    assert set(strict.out.split()) == {"1.0", "2.1", "old"}

    done = transship("prune", "--approve", str(tmp_path / "plan.json"), "-f", str(mirrors))
    assert done.code == 0, done.err
    assert tags_of(other_registry.url, repository) == {"2.0", "2.1"}
    nobody = transship("prune", shop, "-f", str(mirrors))
    assert (nobody.code, f"no mirror goes to {shop}" in nobody.err) == (2, True)


def test_a_plan_can_go_to_standard_output(shop: str) -> None:
    done = transship("prune", shop, "--keep-tag", "2.0", "--output", "/dev/stdout", "--column", "state", "--quiet")

    assert done.code == 0, done.err
    assert json.loads(done.out.partition("to delete\t")[0])["destination"] == shop
