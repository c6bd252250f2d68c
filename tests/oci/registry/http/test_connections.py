"""Certificates of ours, proxies, HTTP/2, the pace of requests, the catalog."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from oci.descriptor import Descriptor
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput, NotFound, Refused, Unavailable
from oci.registry.credentials.credential import Credential
from oci.registry.http.pace import TokenBucket
from oci.registry.manifests import catalog
from oci.store import reader_of
from tests.oci.registry.conftest import Client
from tests.servers.certificates import make_certificates
from tests.servers.docker_registry import DockerRegistry
from tests.servers.front import Front
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.servers.strict_registry import Features, StrictHandler, StrictRegistry
from tests.support.content import image, push

Make = Callable[..., Client]


def test_a_registry_that_wants_a_client_certificate(tmp_path: Path, make_client: Make) -> None:
    made = make_certificates(tmp_path / "certificates")
    server = DockerRegistry(tmp_path / "registry", certificate=made.certificate, key=made.key)
    configuration = tmp_path / "registry" / "config.yml"
    settings: dict[str, Any] = yaml.safe_load(configuration.read_text())
    settings["http"]["tls"]["clientcas"] = [str(made.ca)]
    configuration.write_text(yaml.safe_dump(settings))
    with server:
        ours = {"client_certificate": str(made.client_certificate), "client_key": str(made.client_key)}
        client = make_client(ca_files=(str(made.ca),), **ours)
        assert client.repository(server.host, "a/b").head_manifest("v1") is None

        with pytest.raises(Unavailable):
            make_client(ca_files=(str(made.ca),), retries=0).repository(server.host, "a/b").head_manifest("v1")


def test_a_client_certificate_that_is_none_is_named(make_client: Make, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be used as a client certificate"):
        make_client(client_certificate=str(tmp_path / "no")).repository("registry.example", "a/b")


@pytest.mark.parametrize("chunk_size", [0, 500_000])
def test_http2_in_both_directions(tmp_path: Path, make_client: Make, chunk_size: int) -> None:
    made = make_certificates(tmp_path / "certificates")
    server = DockerRegistry(tmp_path / "registry", certificate=made.certificate, key=made.key)
    configuration = tmp_path / "registry" / "config.yml"
    settings: dict[str, Any] = yaml.safe_load(configuration.read_text())
    settings["http"]["http2"]["disabled"] = False
    configuration.write_text(yaml.safe_dump(settings))
    data = bytes(range(256)) * 8000
    blob = Descriptor("application/octet-stream", digest_of(data), len(data))
    with server:
        store = make_client(http2=True, ca_files=(str(made.ca),), chunk_size=chunk_size).repository(server.host, "a/b")
        store.put_blob(blob, reader_of(data))
        assert b"".join(store.read_blob(blob)) == data
        assert b"".join(store.read_blob(blob, 5, 7)) == data[5:12]
        assert store.head_manifest("missing") is None
        log = (tmp_path / "registry" / "log").read_text()
    assert "HTTP/2.0" in log
    assert "HTTP/1.1" not in log


class _Signing(StrictHandler):
    def _blob(self, name: str, reference: str) -> None:
        if "X-Amz-Signature" in self.path:
            super()._blob(name, reference)
        elif reference.endswith("0" * 64):
            self.answer(307, Location=f"{self.registry.url}/gone?X-Amz-Signature=topsecret")
        else:
            self.answer(307, Location=f"{self.registry.url}{self.path}?X-Amz-Signature=topsecret")


class Signing(StrictRegistry):
    handler = _Signing


def test_a_signed_query_is_in_no_log_and_no_error(make_client: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = b"signed " * 1000
    blob = Descriptor("application/octet-stream", digest_of(data), len(data))
    missing = Descriptor("application/octet-stream", Digest("sha256:" + "0" * 64), 7)
    with caplog.at_level(logging.DEBUG), Signing() as server:
        server.store.add_blob("a/b", data)
        store = make_client(side="source", retries=0).repository(server.host, "a/b")
        assert b"".join(store.read_blob(blob)) == data
        with pytest.raises(NotFound) as caught:
            b"".join(store.read_blob(missing))
    assert any("X-Amz-Signature" in seen.path for seen in server.requests())
    assert len(caplog.records) > 2
    for text in (caplog.text, str(caught.value), caught.value.hint):
        assert "topsecret" not in text
        assert "X-Amz-Signature" not in text


def test_http2_without_its_package_says_what_to_install(make_client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'transship\[http2\]'"):
        make_client(http2=True).repository("registry.example", "a/b")


def test_requests_keep_the_pace_that_is_set(make_client: Make) -> None:
    with StrictRegistry() as server:
        store = make_client(requests_per_second=20.0).repository(server.host, "a/b")
        started = time.monotonic()
        for _ in range(5):
            store.head_manifest("v1")

    assert time.monotonic() - started >= 4 / 20


def test_sessions_of_a_process_keep_one_limit_together(make_client: Make) -> None:
    """`mirror watch` opens a session for each batch; what the registry counts is their sum. So are both sides."""
    with StrictRegistry(Features(user="bob:secret")) as server:
        bob = Credential("bob", "secret", origin="the test")
        stores = [
            make_client(bob, side=side, requests_per_second=20.0).repository(server.host, "a/b")
            for side in ("source", "destination", "destination")
        ]
        started = time.monotonic()
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda number: stores[number % 3].head_manifest("v1"), range(9)))
        took, requests = time.monotonic() - started, server.requests()

    assert len(requests) > 9  # a challenge was answered: that is a request as well
    assert took >= (len(requests) - 1) / 20


def test_a_limit_of_one_registry_slows_no_other(make_client: Make) -> None:
    assert TokenBucket.of("requests a.example", 2.0) is not TokenBucket.of("requests b.example", 2.0)
    first, second = (make_client(requests_per_second=rate).registries for rate in (2.0, 3.0))
    limits = {id(registries.transport("a.example")._allowed) for registries in (first, second)}
    assert len(limits) == 2  # what one run allows itself isn't what another may


def test_the_catalog_lists_repositories(tmp_path: Path, make_client: Make) -> None:
    with DockerRegistry(tmp_path) as server:
        for number in range(3):
            push(server.url, f"a/repo{number}", image(number), "v1")
        client = make_client()

        assert list(catalog(client.registries.transport(server.host))) == [
            "a/repo0",
            "a/repo1",
            "a/repo2",
        ]


def test_a_registry_behind_a_proxy_that_names_itself_with_http(make_client: Make, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    with DockerRegistry(tmp_path / "registry", certificate=made.certificate, key=made.key) as server:
        client = make_client(ca_files=(str(made.ca),))
        client.repository(server.host, "a/b").head_manifest("v1")
        transport = client.registries.transport(server.host)

        found = transport.resolve(f"http://{server.host}/v2/a/b/blobs/uploads/1?x=y", server.url)
        assert str(found) == f"https://{server.host}/v2/a/b/blobs/uploads/1?x=y"


def test_a_registry_without_tls_that_names_itself_with_https(make_client: Make) -> None:
    """It takes a header of the proxy for the truth (X-Forwarded-Proto). No other port of the host is meant."""
    with StrictRegistry() as server:
        client = make_client()
        client.repository(server.host, "a/b").head_manifest("v1")
        transport = client.registries.transport(server.host)

        found = transport.resolve(f"https://{server.host}/v2/a/b/blobs/uploads/1?x=y", server.url)
        assert str(found) == f"{server.url}/v2/a/b/blobs/uploads/1?x=y"
        assert str(transport.resolve("https://127.0.0.1/x", server.url)) == "https://127.0.0.1/x"


def test_a_redirect_to_the_registry_itself_keeps_tls(make_client: Make, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    with DockerRegistry(tmp_path / "registry") as registry, Front(registry.host, made, per_second=1000) as front:
        client = make_client(ca_files=(str(made.ca),))
        client.repository(front.host, "a/b").head_manifest("v1")
        found = client.registries.transport(front.host)._judged(f"http://{front.host}/v2/a/b?x=y", front.url, "x")
        assert str(found) == f"{front.url}/v2/a/b?x=y"


def test_a_registry_without_tls_needs_a_permission_that_the_error_names(
    registry: DockerRegistry, make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http goes without saying at loopback addresses only; this one has a name."""
    resolve = socket.getaddrinfo

    def loopback(host: Any, *more: Any, **others: Any) -> Any:
        return resolve("127.0.0.1" if host == b"registry.example" else host, *more, **others)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)
    host = f"registry.example:{registry.port}"

    with pytest.raises(Unavailable, match="plain http has to be permitted") as caught:
        make_client().repository(host, "a/b").head_manifest("v1")

    assert not caught.value.retryable
    assert make_client(insecure=True).repository(host, "a/b").head_manifest("v1") is None


@pytest.mark.parametrize(("text", "why"), [(None, "no such file or directory"), ("no PEM", "it has no certificate")])
def test_a_ca_file_that_is_none_is_named(make_client: Make, tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)

    with pytest.raises(InvalidInput, match=f"can't be used as a CA file: {why}"):
        make_client(ca_files=(str(path),)).repository("registry.example", "a/b")


def test_one_connection_serves_again_whatever_was_answered(make_client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with StrictRegistry() as server:
        callers: list[object] = []
        accept = server._server.process_request

        def counting(request: Any, caller: Any) -> None:
            callers.append(caller)
            accept(request, caller)

        monkeypatch.setattr(server._server, "process_request", counting)
        store = make_client(insecure=True).repository(server.host, "a/b")
        data = b"x" * 10
        sent = Descriptor("application/octet-stream", digest_of(data), len(data))
        store.put_blob(sent, reader_of(data))
        for _ in range(5):
            assert store.head_manifest("missing") is None
            assert b"".join(store.read_blob(sent)) == data
            with pytest.raises(NotFound):
                store.get_manifest("missing")

    assert len(callers) <= 2  # the very first asks whether TLS is spoken


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/v2/a/b/blobs/uploads/1?_state=x%3D", "/v2/a/b/blobs/uploads/1?_state=x%3D"),
        ("https://localhost:5000/v2/a/u?x=y:z/1", "/v2/a/u?x=y:z/1"),
        ("uploads/2", "/v2/uploads/2"),
        ("/v2/a/../b", "/v2/b"),
        ("/v2/./b", "/v2/b"),
        ("/v2/a b", "/v2/a%20b"),
        ("/v2/a#part", "/v2/a"),
    ],
)
def test_a_location_on_the_registry_itself(make_client: Make, location: str, path: str) -> None:
    target = make_client().registries.transport("localhost:5000").resolve(location, "https://localhost:5000/v2/x")
    assert (str(target.origin), target.path) == ("https://localhost:5000", path)


@pytest.mark.parametrize(
    "location",
    [
        "//169.254.169.254/v2/",
        "https://169.254.169.254/v2/",
        "https://localhost:5000@169.254.169.254/v2/",
    ],
)
def test_a_location_that_only_looks_like_the_registry_itself(make_client: Make, location: str) -> None:
    transport = make_client().registries.transport("localhost:5000")
    with pytest.raises(Refused):
        transport.resolve(location, "https://localhost:5000/v2/x")


class _Together(QuietHandler):
    """Answers the first request at once, and no other before all of them are there."""

    server: Any

    def do_HEAD(self) -> None:
        owner: Together = self.server.owner
        if owner.answered.is_set():
            owner.all_there.wait(30)
        owner.answered.set()
        self.answer(404)


class Together(LoopbackServer):
    handler = _Together

    def __init__(self, others: int) -> None:
        super().__init__()
        self.answered = threading.Event()
        self.all_there = threading.Barrier(others)


def test_what_waits_for_the_first_answer_goes_on_together(make_client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise fifty threads that begin with a registry far away take fifty round trips to do so."""
    threads = 6
    waiting = threading.Barrier(threads)
    with Together(threads - 1) as server, ThreadPoolExecutor(threads) as pool:
        client = make_client()
        transport = client.registries.transport(server.host)
        first = transport._first

        class Gate:
            def __enter__(self) -> None:
                waiting.wait(60)
                first.acquire()

            def __exit__(self, *error: object) -> None:
                first.release()

        monkeypatch.setattr(transport, "_first", Gate())
        asked = [pool.submit(client.repository(server.host, f"a/b{n}").head_manifest, "v1") for n in range(threads)]
        assert [future.result(120) for future in asked] == [None] * threads
    assert not server.all_there.broken


def test_what_other_processes_have_of_a_rate_is_not_used_here() -> None:
    class Queue:
        """What it lends comes back at its end."""

    bucket, queue = TokenBucket.of("requests lent.example", 1000.0), Queue()
    TokenBucket.lend(queue, 0.25)
    TokenBucket.lend(queue, 0.75)
    bucket.take(100)
    assert 0.35 < bucket.take(0) <= 0.4

    del queue
    assert TokenBucket.part() == 1
