"""What is drawn while a command works: where, how often, and that nothing of it stays behind."""

from __future__ import annotations

import io
import sys
from functools import partial

import pytest

from flows.cli.click_ext import Invocation
from flows.cli.mirror.run import MirrorsProgress
from flows.cli.output import IMGPKG
from flows.cli.progress import Above, Bars, Row, Screen, _drawing, _print, bar_line, draw_until
from oci.meter import Receipt


class Terminal(Screen):
    """Keeps what a terminal that breaks long lines when it gets narrower would show."""

    def __init__(self, columns: int) -> None:
        super().__init__(io.StringIO())
        self.columns = columns
        self.logical: list[str] = []

    @property
    def size(self) -> tuple[int, int]:
        return self.columns, 24

    def rows(self) -> list[str]:
        return [
            line[start : start + self.columns]
            for line in self.logical
            for start in range(0, max(1, len(line)), self.columns)
        ]

    def _write(self, text: str) -> None:
        text = text.replace("\x1b[?2026h", "").replace("\x1b[?2026l", "")
        if text.startswith("\x1b["):
            up, text = text.removeprefix("\x1b[").split("F\x1b[J", 1)
            remaining = len(self.rows()) - int(up)
            while len(self.rows()) > max(0, remaining):
                self.logical.pop()
            assert len(self.rows()) == remaining, "erased a part of what stood above, or not all of its own"
        self.logical += text.splitlines()


@pytest.mark.parametrize("narrow", [79, 40, 39, 20, 7])
def test_nothing_stays_behind_when_the_terminal_gets_narrower(narrow: int) -> None:
    screen = Terminal(80)
    screen.logical = ["$ transship copy"]
    screen.draw(["x" * 79, "short", "y" * 60])

    screen.columns = narrow
    screen.draw(["one"])
    assert screen.logical == ["$ transship copy", "one"]
    screen.columns = 120
    screen.erase()
    assert screen.logical == ["$ transship copy"]


def test_lines_of_the_product_go_above_and_parts_of_lines_wait() -> None:
    screen = Terminal(80)
    product = io.StringIO()
    above = Above(product, screen)
    screen.draw(["drawn"])

    above.write("half a ")
    assert (product.getvalue(), screen.logical) == ("", ["drawn"])
    above.write("line\nrest")
    assert (product.getvalue(), screen.logical) == ("half a line\n", [])
    above.end()
    assert product.getvalue() == "half a line\nrest"


def test_no_line_is_wider_than_the_terminal_and_no_more_than_fit() -> None:
    screen = Terminal(20)
    screen.draw(["z" * 50] * 100)

    assert {len(line) for line in screen.logical} == {19}
    assert len(screen.logical) == 22


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "requested", "terminal", "how"),
    [
        ({}, "auto", True, draw_until),
        ({"CI": "1"}, "auto", True, _print),
        ({"TERM": "dumb"}, "auto", True, _print),
        ({}, "auto", False, _print),
        ({"CI": "1"}, "plain", True, _print),
        ({}, "none", True, None),
    ],
)
def test_what_is_animated(
    environ: dict[str, str], requested: str, terminal: bool, how: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Tty() if terminal else io.StringIO())
    invocation = Invocation()
    invocation.output.tty = terminal

    draw = _drawing(MirrorsProgress(Receipt, 1), invocation, requested)

    assert (draw.func if isinstance(draw, partial) else None) is how


def test_under_the_name_imgpkg_nothing_is_said_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [IMGPKG])

    assert _drawing(MirrorsProgress(Receipt, 1), Invocation(), "auto") is None


def test_the_table_of_mirrors_folds_what_is_finished() -> None:
    progress = MirrorsProgress(Receipt, 3)
    progress.compared("web", 4)
    progress.compared("tools", 2)
    progress.compared("unchanged", 0)
    progress.moved("web", 3, 5 << 20)

    whole, *mirrors = progress.lines(80)
    assert whole.startswith("0 of 3 mirrors, 3 of 6 tags")
    assert "left" in whole
    assert [line.split()[0] for line in mirrors] == ["web", "tools"]
    assert "3 of 4 tags  5.0 MiB" in mirrors[0]
    progress.finished("unchanged", failed=False)
    progress.finished("tools", failed=True)
    assert len(progress.lines(80)) == 2
    assert progress.line().startswith("2 of 3 mirrors, 3 of 4 tags, 1 failed")


class Work(Bars):
    def overall(self) -> Row:
        return Row("1 of 2 images", 50, 100)

    def parts(self) -> list[Row]:
        return [Row("web", 10, 20), Row("unknown")]


def test_bars_stand_in_columns() -> None:
    whole, web, unknown = Work().lines(100)

    assert whole.index("━") == web.index("━")
    assert unknown.strip() == "unknown"
    assert "50 B of 100 B" in Work().line()
    assert bar_line(Row("empty", 0, 0), 0.0, indent=0, name_width=5).count("━") > 0
