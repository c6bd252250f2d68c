from __future__ import annotations

import base64
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from oci.meter import METRICS_FILE, PUSHGATEWAY, Receipt, RunMetrics, export_metrics, exposition, push, write
from tests.servers.http_server import LoopbackServer, QuietHandler

RECEIPT = Receipt(
    seconds=1.5,
    requests={"corp.example": {"GET manifest": 2, "POST upload": 3}},
    retries=1,
    throttled_seconds=0.25,
    bytes_read=10,
    bytes_written=10,
    bytes_mounted=5,
    blobs_written=1,
    blobs_mounted=1,
)
RUN = RunMetrics(
    names={"destination": "corp.example/shop"},
    succeeded=True,
    ended=1_790_000_000.5,
    receipt=RECEIPT,
    images={"copied": 2, "present": 3, "failed": 0},
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """As Prometheus would read it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(METRICS_FILE, raising=False)
    monkeypatch.delenv(PUSHGATEWAY, raising=False)


def test_prometheus_reads_every_number_with_its_labels() -> None:
    found = parsed(exposition(RUN))

    to = ("destination", "corp.example/shop")
    assert found["transship_run_success", (to,)] == 1
    assert found["transship_run_end_timestamp_seconds", (to,)] == 1_790_000_000.5
    assert found["transship_run_duration_seconds", (to,)] == 1.5
    assert found["transship_run_images", (to, ("outcome", "present"))] == 3
    assert found["transship_run_bytes", (to, ("outcome", "mounted"))] == 5
    assert found["transship_run_blobs", (to, ("outcome", "written"))] == 1
    assert found["transship_run_requests", (to, ("kind", "POST upload"), ("registry", "corp.example"))] == 3
    assert found["transship_run_retries", (to,)] == 1
    assert found["transship_run_throttled_seconds", (to,)] == 0.25


def test_every_metric_is_explained_and_has_a_type() -> None:
    families = list(text_string_to_metric_families(exposition(RUN)))

    assert len(families) == 9
    assert all(family.documentation.endswith(".") and family.type == "gauge" for family in families)


def test_a_run_without_a_request_names_no_empty_metric() -> None:
    assert "transship_run_requests" not in exposition(replace(RUN, receipt=Receipt()))


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "brace}", "ünï", '\\"\n'])
def test_a_hostile_name_stays_a_label(name: str) -> None:
    found = parsed(exposition(replace(RUN, names={"destination": name})))

    assert found["transship_run_success", (("destination", name),)] == 1


def test_what_is_no_unicode_makes_no_broken_file(tmp_path: Path) -> None:
    write([replace(RUN, names={"destination": "oci:/\udcff"})], str(tmp_path / "a.prom"))

    assert parsed((tmp_path / "a.prom").read_text())


def test_runs_that_share_a_file_share_the_explanations_of_their_numbers(tmp_path: Path) -> None:
    mirrors = [replace(RUN, names={"mirror": name}) for name in ("debian", "shop")]

    export_metrics(*mirrors, warn=pytest.fail, path=str(tmp_path / "mirrors.prom"))

    text = (tmp_path / "mirrors.prom").read_text()
    assert text.count("# TYPE transship_run_success ") == 1
    assert {labels for name, labels in parsed(text) if name == "transship_run_success"} == {
        (("mirror", "debian"),),
        (("mirror", "shop"),),
    }


def test_the_file_is_replaced_whole_and_readable_for_the_collector(tmp_path: Path) -> None:
    path = tmp_path / "transship.prom"
    path.write_text("half a li")

    export_metrics(RUN, warn=pytest.fail, path=str(path))

    assert parsed(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["transship.prom"]


def test_in_a_folder_each_destination_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_FILE, str(tmp_path))
    for names in ({"destination": "corp.example/A"}, {"mirror": "nightly", "destination": "corp.example/../b"}):
        export_metrics(replace(RUN, names=names), warn=pytest.fail)
        export_metrics(replace(RUN, names=names), warn=pytest.fail)

    assert sorted(os.listdir(tmp_path)) == [
        "transship-corp-example-a.prom",
        "transship-nightly-corp-example-b.prom",
    ]


def test_a_folder_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []

    export_metrics(RUN, warn=warnings.append, path=str(tmp_path / "missing" / "a.prom"))

    assert warnings == [f"metrics could not be written to {tmp_path}/missing/a.prom: No such file or directory"]


class _Handler(QuietHandler):
    def do_PUT(self) -> None:
        owner: _Gateway = self.server.owner  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        owner.puts.append((self.path, dict(self.headers), body))
        self.answer(owner.status)


class _Gateway(LoopbackServer):
    """Keeps what was put, as a Pushgateway does."""

    handler = _Handler

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[str, dict[str, str], str]] = []
        self.status = 200


@pytest.fixture
def gateway() -> Iterator[_Gateway]:
    with _Gateway() as server:
        yield server


def test_a_pushgateway_gets_them_in_a_group_of_the_run(gateway: _Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PUSHGATEWAY, f"{gateway.url}/")

    export_metrics(RUN, warn=pytest.fail)

    [(path, headers, body)] = gateway.puts
    assert path == f"/metrics/job/transship/destination@base64/{base64.b64encode(b'corp.example/shop').decode()}"
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert parsed(body) == parsed(exposition(RUN))


def test_a_login_of_the_gateway_is_a_header_and_in_no_warning(
    gateway: _Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.status = 401
    warnings: list[str] = []
    monkeypatch.setenv(PUSHGATEWAY, f"http://bob:p%40ss@{gateway.host}")

    export_metrics(RUN, warn=warnings.append)

    assert gateway.puts[0][1]["Authorization"] == f"Basic {base64.b64encode(b'bob:p@ss').decode()}"
    assert warnings == [f"metrics could not be pushed to {PUSHGATEWAY}: HTTP Error 401: Unauthorized"]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "file:///etc/passwd", "http://[", "not-to-be-seen", "http://"]
)
def test_a_gateway_that_cannot_be_reached_is_a_warning(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setenv(PUSHGATEWAY, address)

    export_metrics(RUN, warn=warnings.append)

    assert len(warnings) == 1
    assert PUSHGATEWAY in warnings[0]
    assert "not-to-be-seen" not in warnings[0]


def test_a_gateway_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        push(RUN, f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)


@pytest.mark.parametrize("target", ["file", "missing", "/dev/null"])
@pytest.mark.parametrize("named", ["flag", "environment"])
def test_a_link_is_not_written_through_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, named: str
) -> None:
    file, link = tmp_path / "file", tmp_path / "link.prom"
    file.write_text("old")
    link.symlink_to(target if target.startswith("/") else tmp_path / target)
    if named == "environment":
        monkeypatch.setenv(METRICS_FILE, str(link))
    warnings: list[str] = []

    export_metrics(RUN, warn=warnings.append, path=str(link) if named == "flag" else "")

    assert len(warnings) == 1
    assert link.is_symlink()
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link.prom"]


def test_a_pipe_gets_the_numbers_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()

    export_metrics(RUN, warn=pytest.fail, path=str(path))
    reader.join()

    assert got == [exposition(RUN).encode()]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_pipe_without_a_reader_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mirror watch` writes the numbers between two mirrors: nobody may hold it up."""
    monkeypatch.setattr("oci.meter._PATIENCE", 0.1)
    (folder := tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", folder / "transship-corp-example-shop.prom"):
        os.mkfifo(path)
        warnings: list[str] = []
        export_metrics(RUN, warn=warnings.append, path=str(path if path.parent == tmp_path else folder))
        assert len(warnings) == 1
        assert f"no process has read the pipe {path}" in warnings[0]


def test_a_planted_link_in_a_folder_of_metrics_stays(tmp_path: Path) -> None:
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("old")
    export_metrics(RUN, warn=pytest.fail, path=str(folder))
    [made] = folder.iterdir()
    made.unlink()
    made.symlink_to(victim)
    warnings: list[str] = []

    export_metrics(RUN, warn=warnings.append, path=str(folder))

    assert len(warnings) == 1
    assert made.is_symlink()
    assert victim.read_text() == "old"
