"""The receiver as a process, in front of a stand-in for the Prefect server that can go away."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.receiver.app import CONNECTIONS_OF_A_PEER, parse_tokens
from oci.errors import InvalidInput
from tests.flows.receiver.test_notification import envelope, event
from tests.servers.http_server import LoopbackServer, QuietHandler
from tests.support.command import transship
from tests.support.receiver import TOKEN, Receiver
from tests.support.waiting import until


class _EventsHandler(QuietHandler):
    def do_GET(self) -> None:
        self.answer(404)  # the address of CSRF tokens, which a server gives out only when it is told to

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner: PrefectApi = self.server.owner  # type: ignore[attr-defined]
        if owner.down or (len(told) > 1 and owner.picky) or (owner.picky and told[0]["payload"]["tag"] == "bad"):
            self.answer(503 if owner.down else 422, b"{}")
            return
        owner.events += told
        self.answer(204)


class PrefectApi(LoopbackServer):
    """Takes `POST /api/events` as the Prefect server does; `down` answers 503, `picky` refuses the tag `bad`."""

    handler = _EventsHandler

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self.down = False
        self.picky = False

    @property
    def tags(self) -> list[str]:
        return [event["payload"]["tag"] for event in self.events]


@pytest.fixture(scope="module")
def shared_api() -> Iterator[PrefectApi]:
    with PrefectApi() as server:
        yield server


@pytest.fixture(scope="module")
def receiver(shared_api: PrefectApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("receiver")
    with Receiver(folder, _environment(shared_api, folder), "--capacity", "5") as running:
        yield running


@pytest.fixture
def api(shared_api: PrefectApi) -> Iterator[PrefectApi]:
    shared_api.events.clear()
    yield shared_api
    shared_api.down = shared_api.picky = False


def _environment(api: PrefectApi, folder: Path) -> dict[str, str]:
    return {
        "PREFECT_API_URL": f"{api.url}/api",
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "DO_NOT_TRACK": "1",
    }


def test_a_push_that_was_answered_arrives_as_an_event(receiver: Receiver, api: PrefectApi) -> None:
    answer = receiver.post({"events": [event(tag="first"), event("pull")]})

    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "repeated": 0, "ignored": 1, "broken": 0}
    until("the event", lambda: api.tags == ["first"])


def test_the_address_may_name_the_registry(receiver: Receiver, api: PrefectApi) -> None:
    receiver.post({"events": [event(tag="renamed", host="127.0.0.1:5000")]}, query="?registry=registry:5000")

    until("the event", lambda: api.events)
    assert api.events[0]["resource"]["prefect.resource.id"] == "transship.registry.registry:5000/shop/web"


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], f"{TOKEN}x", "ünïcode".encode().decode("latin-1")])
def test_without_the_token_nothing_is_read(receiver: Receiver, api: PrefectApi, token: str) -> None:
    answer = httpx.post(
        f"{receiver.url}/notifications",
        content=envelope(event(tag="intruder")),
        headers=[(b"Authorization", f"Bearer {token}".encode("latin-1"))] if token else [],
    )

    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]
    receiver.post({"events": [event(tag=f"honest-{len(token)}-{len(receiver.log)}")]})
    until("the event with the token", lambda: api.events)
    assert "intruder" not in api.tags


def test_a_body_without_end_is_cut_off(receiver: Receiver) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 100_000

    try:
        status = httpx.post(
            f"{receiver.url}/notifications", content=endless(), headers={"Authorization": f"Bearer {TOKEN}"}
        ).status_code
    except httpx.TransportError:  # the connection was closed before all was sent
        status = 413

    assert status == 413
    assert receiver.health()["waiting"] == 0


def test_what_is_no_notification_is_answered_so(receiver: Receiver) -> None:
    answer = receiver.post(b"hello")

    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]


def test_pushes_wait_while_the_server_is_away_and_arrive_when_it_is_back(receiver: Receiver, api: PrefectApi) -> None:
    api.down = True
    for number in range(3):
        assert receiver.post({"events": [event(tag=f"wait-{number}")]}).status_code == 202
    until("an attempt that failed", lambda: receiver.health()["trouble"])
    assert receiver.health()["waiting"] == 3

    api.down = False

    until("delivery", lambda: receiver.health()["waiting"] == 0)
    assert api.tags == ["wait-0", "wait-1", "wait-2"]


def test_a_full_queue_says_so_instead_of_losing_a_push(receiver: Receiver, api: PrefectApi) -> None:
    api.down = True
    answers = [receiver.post({"events": [event(tag=f"many-{number}")]}) for number in range(7)]

    assert [answer.status_code for answer in answers] == [202] * 5 + [503] * 2
    assert answers[-1].headers["Retry-After"] == "10"

    api.down = False
    until("delivery", lambda: receiver.health()["waiting"] == 0)
    assert receiver.post({"events": [event(tag="many-6")]}).json()["accepted"] == 1
    until("the push that was sent again", lambda: "many-6" in api.tags)
    assert api.tags == [f"many-{number}" for number in (0, 1, 2, 3, 4, 6)]


def test_an_event_that_the_server_refuses_is_logged_and_costs_no_other(receiver: Receiver, api: PrefectApi) -> None:
    api.picky = True
    refused = receiver.health()["refused"]

    receiver.post({"events": [event(tag="good"), event(tag="bad"), event(tag="better")]})
    until("delivery", lambda: receiver.health()["waiting"] == 0)

    assert api.tags == ["good", "better"]
    assert receiver.health()["refused"] == refused + 1
    assert "refuses the event of registry.example/shop/web:bad" in receiver.log


def test_a_stopped_receiver_delivers_what_waits_first(api: PrefectApi, tmp_path: Path) -> None:
    with Receiver(tmp_path, _environment(api, tmp_path)) as mine:
        api.down = True
        mine.post({"events": [event(tag="last-words")]})
        until("an attempt that failed", lambda: mine.health()["trouble"])
        api.down = False

        assert mine.stop() == 0

    assert api.tags == ["last-words"]
    assert TOKEN not in mine.log


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "registry.example"])
def test_the_network_is_not_listened_to_without_a_token(host: str) -> None:
    done = transship("receiver", "--host", host, environ={"PREFECT_API_URL": "http://127.0.0.1:1/api"})

    assert done.code == 2
    assert f"without a token, the receiver doesn't listen on {host}" in done.err


def test_an_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = transship("receiver", "--port", port, environ={"PREFECT_API_URL": "http://127.0.0.1:1/api"})

    assert done.code == 2
    assert f"can't listen on 127.0.0.1:{port}" in done.err


def test_a_killed_receiver_delivers_what_it_had_accepted_when_it_is_started_again(
    api: PrefectApi, tmp_path: Path
) -> None:
    journal = str(tmp_path / "journal")
    with Receiver(tmp_path, _environment(api, tmp_path), "--journal", journal) as first:
        first.post({"events": [event(tag="delivered")]})
        until("delivery", lambda: api.tags == ["delivered"])
        api.down = True
        first.post({"events": [event(tag="kept-1"), event(tag="kept-2")]})
        first.kill()
    api.down = False

    with Receiver(tmp_path, _environment(api, tmp_path), "--journal", journal) as second:
        until("delivery of what was kept", lambda: len(api.tags) == 3)
        until("an empty queue", lambda: second.health()["waiting"] == 0)

    assert api.tags == ["delivered", "kept-1", "kept-2"]
    assert Path(journal).read_bytes() == b""


def half_open(receiver: Receiver) -> socket.socket:
    """A connection that has sent a part of its headers."""
    host, _, port = receiver.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(b"POST /notifications HTTP/1.1\r\nHost: receiver\r\n")
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection; waits for that."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_half_open_connections_of_a_peer_are_few_and_end_by_themselves(receiver: Receiver, api: PrefectApi) -> None:
    connections = [half_open(receiver) for _ in range(CONNECTIONS_OF_A_PEER + 5)]
    try:
        assert all(is_closed(connection) for connection in connections[CONNECTIONS_OF_A_PEER:])
        assert all(is_closed(connection) for connection in connections)
        assert receiver.post({"events": [event(tag="after-the-siege")]}).status_code == 202
    finally:
        for connection in connections:
            connection.close()


def test_a_token_of_one_registry_says_nothing_of_another(shared_api: PrefectApi, tmp_path: Path) -> None:
    tokens = f"{TOKEN}\nregistry.example only-one\n"
    with Receiver(tmp_path, _environment(shared_api, tmp_path), tokens=tokens) as receiver:
        own = receiver.post({"events": [event(host="registry.example", tag="own")]}, token="only-one")
        other = receiver.post({"events": [event(host="corp.example", tag="other")]}, token="only-one")
        renamed = receiver.post(
            {"events": [event(host="corp.example", tag="renamed")]}, token="only-one", query="?registry=corp.example"
        )
        anything = receiver.post({"events": [event(host="corp.example", tag="anything")]})

    assert (own.status_code, other.status_code, renamed.status_code, anything.status_code) == (202, 403, 403, 202)
    assert "speaks for registry.example only" in other.text


@pytest.mark.parametrize("text", ["a b c", "registry.example token extra"])
def test_a_file_of_tokens_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="write HOST TOKEN"):
        parse_tokens(text)
