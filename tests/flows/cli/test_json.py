"""`--json`: the fields of each command are those that the book lists, with the types that it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.meter import Receipt
from tests.servers.docker_registry import DockerRegistry
from tests.support.command import transship
from tests.support.shop import push_shop
from tests.support.signing import Signer

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "reports.md"
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "true or false": (bool,),
    "list": (list,),
    "mapping": (dict,),
    "mapping or null": (dict, type(None)),
}


def listed() -> dict[str, dict[str, str]]:
    """Fields and types by command, as the book has them."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        found[name] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, flags=re.MULTILINE))
    return found


def documented_keys(name: str, field: str) -> set[str]:
    """The keys of each entry of a list, where the book names them."""
    section = PAGE.read_text().partition(f"### {name}\n")[2].partition("###")[0]
    row = re.search(rf"^\| `{field}` \| list \| (?P<text>.*?) \|$", section, re.MULTILINE)
    text = row["text"] if row else ""
    return set(re.findall(r"`(\w+)`", text)) if "each" in text or ": `" in text else set()


@pytest.fixture(scope="module")
def documents(
    registry: DockerRegistry, other_registry: DockerRegistry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What each command printed, in an order in which each finds what it needs."""
    folder = tmp_path_factory.mktemp("json")
    shop = push_shop(registry.url, "json/shop", seed=31)
    target, tar = f"{other_registry.host}/json/shop", str(folder / "shop.tar")
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a")
    mirrors = folder / "mirrors.yaml"
    mirrors.write_text(
        f"version: 1\nmirrors:\n- name: app\n  source: {{repository: {registry.host}/json/shop/web}}\n"
        f"  destinations: [{{repository: {other_registry.host}/json/web}}]\n  tags: [{{allow: [v1]}}]\n"
    )
    signer, receipt = Signer.make(), str(folder / "shop.receipt.json")
    (folder / "cosign.key").write_bytes(signer.private())
    signed = ("--receipt", receipt, "--sign", str(folder / "cosign.key"))
    commands = {
        "copy --plan": ("copy", "-b", shop.reference, "--to-repo", target, "--plan"),
        "copy": ("copy", "-b", shop.reference, "--to-repo", target, "--verify", "head", *signed),
        "archive plan": ("archive", "plan", "-b", shop.reference, "--to-tar", tar),
        "copy --to-tar": ("copy", "-b", shop.reference, "--to-tar", tar),
        "copy --to-repo docker-archive": (
            "copy",
            "-i",
            f"{registry.host}/json/shop/web:v1",
            "--to-repo",
            f"docker-archive:{folder}/docker.tar",
        ),
        "archive list": ("archive", "list", tar),
        "archive verify": ("archive", "verify", tar, "--deep"),
        "archive diff": ("archive", "diff", tar, tar),
        "push": ("push", "-i", f"{other_registry.host}/json/files:v1", "-f", str(folder / "files")),
        "pull": ("pull", "-r", "-b", f"{target}:1.4.0", "-o", str(folder / "out")),
        "describe": ("describe", "-b", f"{target}:1.4.0"),
        "tag list": ("tag", "list", "-i", target),
        "auth check": ("auth", "check", target, "--push"),
        "tag delete": ("tag", "delete", "-i", f"{target}:1.4.0"),
        "inspect": ("inspect", f"{target}:1.4.0"),
        "init": ("init", str(folder / "begin")),
        "tag resolve": ("tag", "resolve", "-i", f"{target}:1.4.0"),
        "verify": ("verify", f"{target}:1.4.0"),
        "mirror plan": ("mirror", "plan", "-f", str(mirrors)),
        "mirror check": ("mirror", "check", "-f", str(mirrors)),
        "mirror run": ("mirror", "run", "-f", str(mirrors)),
        "prune": ("prune", target, "--keep-tag", "1.4.0"),
        "prune --approve": ("prune", target, "--keep-nothing", "--approve"),
        "receipt verify": ("receipt", "verify", receipt, "--key", str(signer.write(folder / "cosign.pub"))),
        "version": ("version",),
    }
    return {name: json.loads(transship(*command, "--json").out) for name, command in commands.items()}


def test_what_was_pruned_is_a_difference_to_the_receipt(documents: dict[str, dict[str, Any]]) -> None:
    assert documents["receipt verify"]["Result"]["differences"]


def test_the_book_lists_every_command_that_has_a_result(documents: dict[str, dict[str, Any]]) -> None:
    assert set(listed()) == set(documents)


@pytest.mark.parametrize("name", sorted(listed()))
def test_the_fields_of_a_result_are_those_of_the_book(documents: dict[str, dict[str, Any]], name: str) -> None:
    result, fields = documents[name]["Result"], listed()[name]

    assert set(result) == set(fields)
    for field, kind in fields.items():
        assert isinstance(result[field], TYPES[kind]), (field, result[field])
        assert isinstance(result[field], bool) == (kind == "true or false")


@pytest.mark.parametrize(
    "name", [name for name, fields in sorted(listed().items()) if fields.get("receipt") == "mapping"]
)
def test_what_a_run_cost_has_one_form_in_every_result(documents: dict[str, dict[str, Any]], name: str) -> None:
    receipt = documents[name]["Result"]["receipt"]

    assert receipt.keys() == Receipt().to_dict().keys()
    assert receipt["bytes"].keys() == {"read", "written", "mounted", "skipped"}
    assert receipt["blobs"].keys() == {"written", "mounted", "skipped"}


def entries() -> Iterator[tuple[str, str]]:
    for name, fields in listed().items():
        yield from ((name, field) for field, kind in fields.items() if kind == "list" and documented_keys(name, field))


@pytest.mark.parametrize(("name", "field"), list(entries()))
def test_the_entries_of_a_list_have_the_keys_of_the_book(
    documents: dict[str, dict[str, Any]], name: str, field: str
) -> None:
    for entry in documents[name]["Result"][field]:
        assert set(entry) == documented_keys(name, field)


def test_numbers_are_numbers_and_drift_is_no_success(documents: dict[str, dict[str, Any]]) -> None:
    assert documents["copy"]["Result"]["counts"] == {"done": 7}
    assert documents["copy"]["Result"]["verification"]["blobs"] == documents["archive list"]["Result"]["blobs"] == 18
    assert documents["copy --to-tar"]["Result"]["blobs"] == documents["archive verify"]["Result"]["blobs"] == 18
    assert [row["blobs"] for row in documents["verify"]["Tables"][0]["Rows"]] == [18]
    assert documents["mirror check"]["Result"]["mirrors"][0]["drifted"] is True
    assert documents["mirror check"]["Lines"][-1] != "Succeeded"
    assert "Error" not in documents["mirror check"]


@pytest.mark.parametrize("words", ["", "tag", "help", "help copy", "help --man copy", "help nosuch", "completion bash"])
def test_what_only_explains_is_one_document_as_well(words: str) -> None:
    document = json.loads(transship(*words.split(), "--json").out)

    assert ("Error" in document) == (words in ("", "tag", "help nosuch"))
    assert bool(document["Blocks"]) == (words not in ("tag", "help nosuch"))
