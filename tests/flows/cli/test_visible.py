"""Nothing that a stranger wrote moves a cursor, colours, turns or hides the text of a terminal."""

from __future__ import annotations

import gzip
import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cli.output import Output, VisibleFormatter, visible
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.strict_registry import StrictRegistry
from tests.support import content
from tests.support.command import Done, transship

EVIL = "\x1b]0;owned\x07\x1b[2J\rSucceeded\u202e\u009b31m\u200f\ufeff"
HARMLESS = "tab\t, line\nand ünïcode 漢字 \N{GRINNING FACE}"


def unseen(text: str) -> list[str]:
    """The characters of a text that a terminal doesn't show as they are."""
    return [one for one in text if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture
def bundle(strict: StrictRegistry) -> str:
    web = content.push(strict.url, "shop/web", content.image(1), "v1")
    lock = {
        "apiVersion": "imgpkg.carvel.dev/v1alpha1",
        "kind": "ImagesLock",
        "images": [{"image": web, "annotations": {EVIL: EVIL}}],
    }
    files = {".imgpkg/images.yml": json.dumps(lock).encode(), f"a{EVIL}b.txt": b"x"}
    own = content.Blob(content.DOCKER_LAYER, gzip.compress(content.tar_of(files), 1, mtime=0))
    made = content.image(0, layers=(own,), labels={content.BUNDLE_LABEL: "true", EVIL: EVIL})
    content.push(strict.url, "shop/bundle", made, "v1")
    return f"{strict.host}/shop/bundle:v1"


@pytest.fixture
def strict() -> Iterator[StrictRegistry]:
    with StrictRegistry() as registry:
        yield registry


COMMANDS: dict[str, Callable[[str, Path], list[str]]] = {
    "describe": lambda bundle, _: ["describe", "-b", bundle],
    "describe for a terminal": lambda bundle, _: ["describe", "-b", bundle, "--tty"],
    "describe as YAML": lambda bundle, _: ["describe", "-b", bundle, "--output-type", "yaml"],
    "describe as JSON": lambda bundle, _: ["describe", "-b", bundle, "--json"],
    "pull": lambda bundle, folder: ["pull", "-b", bundle, "-o", str(folder / "out"), "--tty"],
    "copy": lambda bundle, folder: ["copy", "-b", bundle, "--to-tar", str(folder / "x.tar"), "--tty", "--debug"],
    "a tag that is none": lambda bundle, _: ["copy", "-i", f"{bundle}{EVIL}", "--to-repo", bundle.rpartition(":")[0]],
    "a file that isn't there": lambda _, folder: ["archive", "list", str(folder / EVIL.replace("\0", ""))],
    "a flag that is none": lambda bundle, _: ["describe", "-b", bundle, f"--{EVIL}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_what_moves_a_terminal(bundle: str, tmp_path: Path, command: str) -> None:
    done = transship(*COMMANDS[command](bundle, tmp_path))

    assert done.out or done.err
    assert unseen(done.out) == []
    assert unseen(done.err) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/manifests/", status=403, body=json.dumps({"errors": [{"code": EVIL, "message": EVIL}]}).encode()),
        Fault(path="/manifests/", status=500, body=EVIL.encode(), headers={"Content-Type": "text/plain"}),
        Fault(path="/manifests/", raw=b"HTTP/1.1 401 \x1b[31mNo\r\nX: \x1b[2J\x9b31m\r\nContent-Length: 0\r\n\r\n"),
        Fault(path="/manifests/", raw=b"\x1b[2J\x9b31m\r\n\r\n"),
        Fault(path="/tags/", replace_body=json.dumps({"tags": [EVIL, "v1"]}).encode()),
    ],
    ids=["code and message", "text", "header", "no HTTP", "tags"],
)
def test_no_answer_of_a_registry_moves_a_terminal(strict: StrictRegistry, bundle: str, fault: Fault) -> None:
    with FaultProxy(strict.port, fault) as proxy:
        name = f"{proxy.host}/shop/bundle"
        told: list[Done] = [
            transship(*arguments, "--debug", "--tty", "--registry-retry-count", "0")
            for arguments in (["describe", "-b", f"{name}:v1"], ["tag", "list", "-i", name, "--digests"])
        ]

    for done in told:
        assert done.out or done.err
        assert unseen(done.out) == []
        assert unseen(done.err) == []


def test_what_is_harmless_stays() -> None:
    assert visible(HARMLESS) == HARMLESS
    every = [chr(number) for number in range(0x10000)]
    hidden = [one for one in every if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp") and one not in "\n\t"]
    assert not [one for one in every if unicodedata.category(one)[0] in "LNPSM" and visible(one) != one]
    assert not [one for one in hidden if visible(one) == one]


@pytest.mark.parametrize("told", ["done\r\n2026-11-30 12:00:00 INFO forged", "\n\nforged", "a\u2028forged\x85forged"])
def test_a_line_break_in_a_log_makes_no_record(told: str) -> None:
    record = logging.LogRecord("transship", logging.WARNING, "", 1, "the registry says %s", (told,), None)

    first, *further = VisibleFormatter("%(levelname)s %(message)s").format(record).splitlines()

    assert first.startswith("WARNING the registry says")
    assert all(not line or line.startswith("  ") for line in further)


def test_a_cell_of_a_table_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(tty=False).table("Tags", ["Name", "Digest"], [["a\nSucceeded\tx", EVIL]])

    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert unseen(printed) == []


def test_a_log_on_a_terminal_is_filtered_too() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, "%s", (EVIL,), None))

    assert "owned" in stream.getvalue()
    assert unseen(stream.getvalue()) == []
