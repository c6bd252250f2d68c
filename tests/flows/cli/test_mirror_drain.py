"""How a run of mirrors ends at SIGTERM, and what it says when nothing has changed."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
from pathlib import Path

from flows.cli.output import ExitCode
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import PROGRAM, transship
from tests.support.content import OCI_LAYER, Blob, image, push
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

_SIZE = 60_000
"""Bytes of a layer."""


def threads_of(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def test_sigterm_lets_images_on_their_way_arrive_and_begins_no_more(tmp_path: Path) -> None:
    """One image at a time, and the first blob is held up: it arrives with its tag, the second isn't begun."""
    with StrictRegistry() as server:
        for number, tag in enumerate(("1.0", "2.0")):
            slow = Blob(OCI_LAYER, gzip.compress(random.Random(number).randbytes(_SIZE)))
            push(server.url, "from/web", image(90 + number, layers=[slow]), tag)
        with SlowLink(server.host, holds_after=_SIZE // 2) as link:
            path = tmp_path / "mirrors.yaml"
            path.write_text(
                f"version: 1\nmirrors:\n- name: web\n  source: {{repository: {link.address}/from/web}}\n"
                f"  destinations: [{{repository: {server.host}/to/web}}]\n"
                "  tags: [{allow: ['1.0', '2.0']}]\n  limits: {concurrency: 1}\n"
            )
            report = tmp_path / "report.json"
            words = ("mirror", "run", "-f", str(path), "--report", str(report), "--no-state")
            process = subprocess.Popen([str(PROGRAM), *words], stderr=subprocess.PIPE, text=True)
            until("a layer is on its way", lambda: link.passed > _SIZE // 2)
            before = threads_of(process)
            process.send_signal(signal.SIGTERM)
            until("the signal has its thread", lambda: threads_of(process) > before)
            link.holds_after = 0
            _, said = process.communicate(timeout=60)

        assert process.returncode == ExitCode.TERMINATED, said
        (mirror,) = json.loads(report.read_text())["mirrors"]
        assert len(server.store.repository("to/web").tags) == mirror["copied"] == 1
        assert [entry["not_tried"] for entry in mirror["failed"]] == [True]


def test_only_what_changed_is_told(tmp_path: Path) -> None:
    with StrictRegistry() as server:
        push(server.url, "from/web", image(95), "1.0")
        path = tmp_path / "mirrors.yaml"
        path.write_text(
            f"version: 1\nmirrors:\n- name: web\n  source: {{repository: {server.host}/from/web}}\n"
            f"  destinations: [{{repository: {server.host}/to/web}}]\n"
        )
        first, second = (transship("mirror", "run", "-f", str(path), "--only-changes") for _ in range(2))

    assert "web" in first.err
    assert (second.code, second.out, second.err) == (ExitCode.DONE, "", "")
