"""What a run leaves to the next: facts about registries, and upload sessions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import Cancelled, CancelToken
from oci.meter import Meter
from oci.reference import Repository
from oci.registry import endpoints, uploads
from oci.registry.credentials.credential import Credentials
from oci.registry.options import RegistryOptions
from oci.registry.profiles import Learned
from oci.registry.repository import Registries
from oci.registry.state import HOSTS, LIFETIME, UPLOADS, Facts, State
from oci.store import BlobOutcome, reader_of
from tests.servers.capped_registry import CappedRegistry
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Refusal, StrictHandler, StrictRegistry
from tests.support.content import image, noise, push
from tests.support.slow_link import SlowLink
from tests.support.waiting import until

HOST = "registry.example"
DATA = random.Random(3).randbytes(5_000_000)


@contextmanager
def registries(folder: Path | None, **settings: Any) -> Iterator[tuple[Registries, Meter]]:
    meter = Meter()
    options = RegistryOptions(insecure=True, retries=2, **settings)
    with Registries(
        side="destination",
        settings=lambda _: options,
        credentials=Credentials([]),
        meter=meter,
        cancel=CancelToken(),
        state=State(str(folder)) if folder else None,
    ) as opened:
        yield opened, meter


def described(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def counts(meter: Meter) -> Mapping[str, int]:
    return next(iter(meter.receipt().requests.values()), {})


class _NoHead(StrictHandler):
    def _route(self, path: str) -> None:
        if self.command == "HEAD" and "/manifests/" in path:
            raise Refusal(405, "UNSUPPORTED", "not here")
        super()._route(path)


class NoHead(StrictRegistry):
    handler = _NoHead

    @property
    def lasting_host(self) -> str:
        """Leads to this machine, and isn't loopback: of loopback nothing is kept."""
        return f"0.0.0.0:{self.port}"


def test_what_was_refused_is_not_asked_for_in_the_next_run(tmp_path: Path) -> None:
    asked = []
    with NoHead() as server:
        push(server.url, "a/b", image(7002), "v1")
        for folder in (tmp_path, tmp_path, None):
            before = len(server.requests())
            with registries(folder) as (opened, meter):
                assert opened.repository(Repository(server.lasting_host, "a/b")).head_manifest("v1") is not None
            asked.append([seen.method for seen in server.requests()[before:]])
            said = meter.receipt().fallbacks.get(server.lasting_host, ())
            assert ("HEAD of a manifest refused (405), GET used" in said) == (len(asked) != 2)

    assert asked == [["HEAD", "GET"], ["GET"], ["HEAD", "GET"]]


@pytest.mark.parametrize("works", [True, False])
def test_a_stale_fact_costs_a_request_and_heals(tmp_path: Path, works: bool) -> None:
    """Whatever an earlier run saw: the opposite of what the registry does."""
    state = State(str(tmp_path))
    kinds = {name: works for name, kind in endpoints.KINDS.items() if kind.plain_way}
    with NoHead() as server:
        push(server.url, "a/b", image(7002), "v1")
        state.learn({server.lasting_host: Facts(works=kinds, body_limit=300_000)})
        with registries(tmp_path) as (opened, _):
            store = opened.repository(Repository(server.lasting_host, "a/b"))
            assert store.head_manifest("v1") is not None
            for data in (b"small", DATA):
                assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
                assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.SKIPPED
                assert store.blob_size(digest_of(data)) == len(data)
                assert b"".join(store.read_blob(described(data), 1, 3)) == data[1:4]

        known = State(str(tmp_path)).facts(server.lasting_host)
    assert known.works["HEAD_MANIFEST"] is False


@pytest.mark.parametrize("limit", [-(1 << 70), -1, 1, 1000])
def test_a_limit_that_no_run_has_learned_counts_for_nothing(tmp_path: Path, limit: int) -> None:
    """Of -1 bytes, a body never ends; of 1, it nearly never does."""
    facts = {"at": time.time(), "body_limit": limit, "rates": {"POST upload": -1e300}}
    with NoHead() as server:
        content = {"version": 1, "registries": {server.lasting_host: facts}}
        (tmp_path / "registries.json").write_text(json.dumps(content))
        with registries(tmp_path) as (opened, meter):
            store = opened.repository(Repository(server.lasting_host, "a/b"))
            assert store.put_blob(described(DATA), reader_of(DATA)) is BlobOutcome.WRITTEN
    assert counts(meter).get("PATCH upload", 0) == 0


def test_state_that_is_a_pipe_or_a_link_is_none(tmp_path: Path) -> None:
    """Nobody writes to the pipe: a run that opened it would wait for ever."""
    state = State(str(tmp_path / "real"))
    state.learn({"registry.example": Facts(body_limit=300_000)})
    for folder, make in (
        ("pipe", os.mkfifo),
        ("link", lambda path: path.symlink_to(tmp_path / "real/registries.json")),
    ):
        (tmp_path / folder).mkdir()
        make(tmp_path / folder / "registries.json")
        assert State(str(tmp_path / folder)).facts("registry.example") == Facts()
    assert State(str(tmp_path / "real")).facts("registry.example").body_limit == 300_000


def test_the_next_run_begins_with_the_rate_that_a_registry_allowed(tmp_path: Path) -> None:
    """Without a state (`--no-state`) each run finds it out anew, and nothing else differs."""
    refused, begun = [], []
    with CappedRegistry({"InitiateLayerUpload": 8.0}) as server:
        host = f"0.0.0.0:{server.port}"
        for folder in (tmp_path, tmp_path, None):
            before = server.refused.total()
            with registries(folder) as (opened, _), ThreadPoolExecutor(8) as threads:
                store = opened.repository(Repository(host, "a/b"))
                begun.append(opened.transport(host).learned.rates.get("POST upload", 0.0))
                blobs = [f"{len(begun)} {number}".encode() for number in range(24)]
                done = threads.map(
                    lambda data, to=store: to.put_blob(described(data), reader_of(data), fresh=True), blobs
                )
                assert set(done) == {BlobOutcome.WRITTEN}
            refused.append(server.refused.total() - before)

    assert (begun[0], begun[2]) == (0.0, 0.0)
    assert 1.0 <= begun[1] <= 16.0
    assert refused[1] < refused[0]


def test_a_learned_rate_grows_with_its_age_and_is_forgotten_after_a_day() -> None:
    facts = Facts(rates={"PUT manifest": 10.0}, at=1000.0)

    assert facts.current_rates(1000.0 + 1800.0) == {"PUT manifest": 15.0}
    assert facts.current_rates(1000.0 + 86_401.0) == {}


def test_facts_of_a_week_ago_are_forgotten(tmp_path: Path) -> None:
    State(str(tmp_path)).learn({HOST: Facts(works={"HEAD_BLOB": False})})
    path = tmp_path / "registries.json"
    body = json.loads(path.read_text())
    assert State(str(tmp_path)).facts(HOST).works == {"HEAD_BLOB": False}

    body["registries"][HOST]["at"] = time.time() - LIFETIME - 1
    path.write_text(json.dumps(body))
    assert State(str(tmp_path)).facts(HOST) == Facts()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version":2}', b'{"version":1,"registries":{"a":1}}', b"\xff"]
)
def test_a_file_that_is_none_holds_nothing_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registries.json"
    path.write_bytes(content)
    state = State(str(tmp_path))
    assert state.facts(HOST) == Facts()
    state.learn({HOST: Facts(body_limit=7)})
    assert State(str(tmp_path)).facts(HOST).body_limit == 7
    assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = State(str(tmp_path / "file" / "below"))
    state.learn({HOST: Facts(body_limit=7)})
    assert state.facts(HOST) == Facts()
    assert state.kept_upload("a/b", "sha256:0", make=True) is None


def test_runs_side_by_side_lose_nothing_of_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: State(str(tmp_path)).learn({f"r{n}.example": Facts(body_limit=n + 1)}), range(40)))

    state = State(str(tmp_path))
    assert [state.facts(f"r{number}.example").body_limit for number in range(40)] == list(range(1, 41))


def test_the_file_has_a_bound_and_the_newest_stay(tmp_path: Path) -> None:
    State(str(tmp_path)).learn({f"old{number}.example": Facts(body_limit=1) for number in range(HOSTS)})
    State(str(tmp_path)).learn({HOST: Facts(body_limit=2)})

    kept = json.loads((tmp_path / "registries.json").read_text())["registries"]
    assert len(kept) == HOSTS
    assert kept[HOST]["body_limit"] == 2


def test_what_may_hide_something_is_never_kept() -> None:
    """A registry that has the referrers API by now must not be asked the old way."""
    learned = Learned(HOST, Meter())
    for kind in (endpoints.GET_REFERRERS, endpoints.GET_TAGS_AFTER, endpoints.HEAD_BLOB):
        learned.decline(kind)
    news = learned.news()
    assert news is not None
    assert news.works == {"HEAD_BLOB": False}


def test_nothing_is_kept_of_loopback(tmp_path: Path) -> None:
    State(str(tmp_path)).learn({"localhost:5000": Facts(body_limit=7), "127.0.0.1:5000": Facts(body_limit=7)})
    assert not (tmp_path / "registries.json").exists()


def test_a_session_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    first = State(str(tmp_path)).kept_upload("a/b", "sha256:0", make=True)
    assert first is not None
    first.write("https://registry.example/v2/a/b/blobs/uploads/1")
    assert State(str(tmp_path)).kept_upload("a/b", "sha256:0") is None
    first.release()

    second = State(str(tmp_path)).kept_upload("a/b", "sha256:0")
    assert second is not None
    assert second.location == "https://registry.example/v2/a/b/blobs/uploads/1"
    second.end()
    assert State(str(tmp_path)).kept_upload("a/b", "sha256:0") is None


def test_a_session_that_is_over_touches_no_file_of_others(tmp_path: Path) -> None:
    kept = State(str(tmp_path)).kept_upload("a/b", "sha256:0", make=True)
    assert kept is not None
    kept.end()
    with (tmp_path / "other").open("wb") as other:  # which gets the number of the session's file
        kept.end()
        kept.release()
        other.write(b"x")


def test_old_sessions_and_too_many_are_removed(tmp_path: Path) -> None:
    for number in range(UPLOADS + 20):
        kept = State().kept_upload("a/b", str(number)) or State(str(tmp_path)).kept_upload(
            "a/b", str(number), make=True
        )
        assert kept is not None
        kept.release()
    for path in list((tmp_path / "uploads").iterdir())[:5]:
        os.utime(path, (1, 1))
    assert State(str(tmp_path)).kept_upload("a/b", "new", make=True) is not None
    assert len(list((tmp_path / "uploads").iterdir())) <= UPLOADS + 1


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs of some megabytes are long."""
    monkeypatch.setattr(uploads, "LONG", 1 << 20)
    monkeypatch.setattr(uploads, "STREAMED", 1 << 20)
    monkeypatch.setattr(uploads, "CHUNK", 1 << 18)


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of files that are closed although they aren't open: by then they may be another thread's connection."""
    found: list[int] = []
    close = os.close

    def watched(number: int) -> None:
        try:
            close(number)
        except OSError:
            found.append(number)
            raise

    monkeypatch.setattr(os, "close", watched)
    return found


class Interrupted:
    """Gives a blob up to a byte, and then the run is cancelled."""

    def __init__(self, data: bytes, until_byte: int) -> None:
        self.data, self.until_byte = data, until_byte
        self.opened: list[int] = []

    def __call__(self, offset: int) -> Iterator[bytes]:
        self.opened.append(offset)
        for start in range(offset, len(self.data), 65_536):
            if start >= self.until_byte:
                raise Cancelled
            yield self.data[start : start + 65_536]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kept", [True, False], ids=["state", "no state"])
def test_an_upload_that_was_cancelled_goes_on_in_the_next_run(tmp_path: Path, kept: bool) -> None:
    folder = tmp_path if kept else None
    with StrictRegistry() as server:
        name = Repository(server.host, "a/b")
        with registries(folder) as (opened, _), pytest.raises(Cancelled):
            opened.repository(name).put_blob(described(DATA), Interrupted(DATA, 4_300_000), fresh=True)
        whole = Interrupted(DATA, len(DATA))
        with registries(folder) as (opened, meter):
            assert opened.repository(name).put_blob(described(DATA), whole, fresh=True) is BlobOutcome.WRITTEN

        assert server.store.blobs[digest_of(DATA)] == DATA
    receipt = meter.receipt()
    assert (receipt.bytes_written < len(DATA) * 0.3) == kept
    assert (whole.opened[0] > 4_000_000) == kept
    assert not kept or not list((tmp_path / "uploads").iterdir())


@pytest.mark.usefixtures("short")
def test_wrong_bytes_of_an_earlier_run_are_sent_again(tmp_path: Path) -> None:
    """Only the registry has all bytes, and it proves them: DIGEST_INVALID is no reason to give up."""
    bad = b"X" + DATA[1:]
    with StrictRegistry() as server:
        name = Repository(server.host, "a/b")
        with registries(tmp_path) as (opened, _), pytest.raises(Cancelled):
            opened.repository(name).put_blob(described(DATA), Interrupted(bad, 3_000_000), fresh=True)
        with registries(tmp_path) as (opened, _):
            opened.repository(name).put_blob(described(DATA), reader_of(DATA))
            assert opened.transport(server.host).learned.works(endpoints.PATCH_UPLOAD) is not False
        assert server.store.blobs[digest_of(DATA)] == DATA
        assert not server.store.uploads


@pytest.mark.usefixtures("short")
def test_a_session_that_the_registry_no_longer_has_costs_one_request(tmp_path: Path, twice: list[int]) -> None:
    with StrictRegistry() as server:
        name = Repository(server.host, "a/b")
        with registries(tmp_path) as (opened, _), pytest.raises(Cancelled):
            opened.repository(name).put_blob(described(DATA), Interrupted(DATA, 3_000_000), fresh=True)
        server.store.uploads.clear()
        with registries(tmp_path) as (opened, meter):
            opened.repository(name).put_blob(described(DATA), reader_of(DATA), fresh=True)
        assert server.store.blobs[digest_of(DATA)] == DATA
    assert counts(meter)["GET upload"] == 1
    assert not list((tmp_path / "uploads").iterdir())
    assert twice == []


@pytest.mark.usefixtures("short")
def test_chunks_that_replace_each_other_are_noticed_at_the_second(tmp_path: Path) -> None:
    from oci.registry.credentials.credential import Credential, Fixed
    from tests.servers.profile_registry import PASSWORD, PROFILES, USER, ProfileRegistry

    ghcr = next(stub for stub in PROFILES if stub.name == "GHCR")
    with ProfileRegistry(ghcr) as server:
        meter = Meter()
        with Registries(
            side="destination",
            settings=lambda _: RegistryOptions(),
            credentials=Credentials([Fixed(Credential(USER, PASSWORD))]),
            meter=meter,
            cancel=CancelToken(),
        ) as opened:
            opened.repository(Repository(server.host, "a/b")).put_blob(described(DATA), reader_of(DATA), fresh=True)
        assert server.store.blobs[digest_of(DATA)] == DATA
    assert counts(meter)["PATCH upload"] == 2
    assert meter.receipt().bytes_written < len(DATA) * 1.5


LAYER = noise(77, 24 << 20)
CHUNKS = ("--registry-chunk-size", "2MiB")


def start(source: str, destination: str, cache: Path, report: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("transship")
    return subprocess.Popen(
        [program, "copy", "-i", source, "--to-repo", destination, "--quiet", "--report", str(report), *CHUNKS],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_a_killed_copy_of_a_big_blob_goes_on_at_docker_registry(registry: DockerRegistry, tmp_path: Path) -> None:
    """Killed at four fifths, while the source is what is waited for; the next run sends the rest."""
    push(registry.url, "state/big", image(7001, layers=(LAYER,)), "v1")
    report = tmp_path / "report.json"
    with DockerRegistry(tmp_path / "destination") as destination, SlowLink(registry.host, 6 << 20) as link:
        target = f"{destination.host}/mirror/big"

        def patched() -> int:
            return sum(seen.method == "PATCH" for seen in destination.requests())

        process = start(f"{link.address}/state/big:v1", target, tmp_path / "cache", report)
        until("four fifths have arrived", lambda: patched() >= 10 or process.poll() is not None, every=0.02)
        link.bytes_per_second = 1
        before = -1
        while before != patched():  # what is in buffers still arrives
            before = patched()
            time.sleep(0.5)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()
        link.bytes_per_second = 0

        second = start(f"{link.address}/state/big:v1", target, tmp_path / "cache", report)
        _, problem = second.communicate(timeout=240)
        assert second.returncode == 0, problem
        assert (
            b"".join(httpx.get(f"{destination.url}/v2/mirror/big/blobs/{digest_of(LAYER.data)}").iter_bytes())
            == LAYER.data
        )
    receipt = json.loads(report.read_text())["receipt"]
    assert receipt["bytes"]["written"] < len(LAYER.data) * 0.3
    assert receipt["requests"][destination.host]["GET upload"] == 1


def test_what_a_wrong_clock_has_written_is_forgotten(tmp_path: Path) -> None:
    far = {f"r{number}.example": Facts(profile="Harbor", at=time.time() + 90 * 86_400) for number in range(HOSTS)}
    (tmp_path / "registries.json").write_bytes(msgspec.json.encode({"version": 1, "registries": far}))
    state = State(str(tmp_path))

    state.learn({"registry.example": Facts(profile="Quay")})

    assert State(str(tmp_path)).facts("registry.example").profile == "Quay"
    assert State(str(tmp_path)).facts("r1.example") == Facts()


def test_a_link_that_leads_nowhere_keeps_no_session_from_being_kept(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "stray").symlink_to(tmp_path / "nowhere")

    assert State(str(tmp_path)).kept_upload("r.example/web", f"sha256:{'0' * 64}", make=True) is not None
