"""Token services that end older tokens whenever they give another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import StoreError, Unauthorized
from oci.registry.credentials.credential import Credential
from oci.registry.credentials.tokens import PATIENCE, Succession, Token
from oci.registry.endpoints import POST_MOUNT, Request, Scope, uploads
from oci.registry.http.origin import Origin
from oci.registry.http.transport import Transport
from oci.registry.profiles import ENDS_OLDER
from oci.registry.repository import RegistryRepository
from oci.registry.state import State
from oci.store import reader_of
from tests.oci.registry.conftest import Client
from tests.servers.profile_registry import PASSWORD, USER, Profile, ProfileRegistry
from tests.support.content import noise

Make = Callable[..., Client]
LOGIN = Credential(USER, PASSWORD, origin="the test")
KINDS = ("identity", "repository", "scope")
REPOSITORIES = 4
THREADS = 16


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def refused(server: ProfileRegistry) -> int:
    return sum(seen.status == 401 for seen in server.seen)


def good(server: ProfileRegistry) -> int:
    return sum(seen.status != 401 and not seen.path.startswith("/token") for seen in list(server.seen))


def move(sides: tuple[Client, Client], host: str, numbers: range) -> None:
    """Copies a blob of a repository of the source into one of the destination for each number, by many threads."""
    source, destination = sides

    def one(number: int) -> None:
        data = noise(number, 1000 if number % 2 else 100_000).data
        read = source.repository(host, f"from/app{number % REPOSITORIES}")
        written = destination.repository(host, f"to/app{number % REPOSITORIES}")
        assert written.head_manifest("v1") is None
        written.put_blob(blob(data), lambda offset: read.read_blob(blob(data), offset), fresh=True)
        assert b"".join(written.read_blob(blob(data))) == data

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(one, numbers))


def fill(server: ProfileRegistry, numbers: range) -> None:
    for number in numbers:
        server.store.add_blob(f"from/app{number % REPOSITORIES}", noise(number, 1000 if number % 2 else 100_000).data)


@pytest.mark.parametrize("mixed", [True, False], ids=["", "no mixed scopes"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_of_two_sides_share_one_token(make_client: Make, kind: str, mixed: bool) -> None:
    with ProfileRegistry(Profile(name="", ends_older=kind, no_mixed_scopes=not mixed)) as server:
        fill(server, range(80))
        clients = make_client(LOGIN, "source", retries=0), make_client(LOGIN, "destination", retries=0)
        move(clients, server.host, range(40))
        given, seen = server.given, refused(server)
        move(clients, server.host, range(40, 80))

        if mixed and kind == "identity":
            assert seen <= 60
            assert given <= 30
            assert server.given == given
            assert refused(server) == seen
            for client in clients:
                [notes] = client.meter.receipt().fallbacks.values()
                assert ENDS_OLDER in notes


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_what_is_denied_is_refused_in_as_few_requests(make_client: Make, kind: str) -> None:
    """As at a registry whose tokens live side by side."""
    denied = frozenset({"to/app1"})
    with ProfileRegistry(Profile(name="", ends_older=kind, denied=denied)) as server:
        client = make_client(LOGIN)
        client.repository(server.host, "to/app0").put_blob(blob(b"first"), reader_of(b"first"))
        given, before = server.given, len(server.seen)
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                client.repository(server.host, "to/app1").put_blob(blob(b"denied"), reader_of(b"denied"))
            assert caught.value.status == 401
            assert not caught.value.retryable

        assert (server.given - given, len(server.seen) - before) == (5, 14)


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_a_wrong_password_is_refused_in_as_few_requests(make_client: Make, kind: str) -> None:
    with ProfileRegistry(Profile(name="", ends_older=kind)) as server:
        client = make_client(Credential(USER, "wrong"), side="source")
        with pytest.raises(Unauthorized):
            client.repository(server.host, "to/app0").head_manifest("v1")
        assert len(server.seen) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_denied_among_much_that_is_not_ends(make_client: Make, kind: str) -> None:
    denied = frozenset({f"to/app{number}" for number in range(1, REPOSITORIES)})
    with ProfileRegistry(Profile(name="", ends_older=kind, denied=denied)) as server:
        client = make_client(LOGIN)

        def one(number: int) -> int:
            data = noise(number, 1000).data
            try:
                client.repository(server.host, f"to/app{number % REPOSITORIES}").put_blob(blob(data), reader_of(data))
            except StoreError as error:
                return error.status
            return 0

        with ThreadPoolExecutor(THREADS) as threads:
            statuses = list(threads.map(one, range(40)))
        assert statuses == [401 if number % REPOSITORIES else 0 for number in range(40)]


def test_another_process_that_logs_in_all_the_time(make_client: Make) -> None:
    """Its tokens end ours: after each few requests, however busy the machine is."""
    with ProfileRegistry(Profile(name="", ends_older="identity")) as server:
        fill(server, range(40))
        clients = make_client(LOGIN, "source", retries=0), make_client(LOGIN, "destination", retries=0)
        move(clients, server.host, range(20))
        assert all(client.registries.transport(server.host).learned.ends_older for client in clients)
        over = threading.Event()
        ended = 0

        def end_tokens() -> None:
            nonlocal ended
            before = good(server)
            while not over.wait(0.002):
                if good(server) >= before + 5:
                    server.tokens = {}
                    before, ended = good(server), ended + 1

        thread = threading.Thread(target=end_tokens)
        thread.start()
        try:
            move(clients, server.host, range(20, 40))
        finally:
            over.set()
            thread.join()
        assert ended > 3


def test_the_next_run_begins_with_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oci.registry.state._is_lasting", bool)
    with ProfileRegistry(Profile(name="", ends_older="identity")) as server:
        fill(server, range(40))

        def run(numbers: range) -> None:
            with ExitStack() as stack:
                state = State(str(tmp_path))
                clients = Client(stack, LOGIN, "source", {}, state), Client(stack, LOGIN, "destination", {}, state)
                move(clients, server.host, numbers)

        run(range(20))
        given, seen = server.given, refused(server)
        run(range(20, 40))
        assert server.given - given <= 12
        assert refused(server) - seen <= 40


def test_tokens_that_end_each_other_before_a_request_gets_through(
    make_client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a service that ends older tokens of a scope, those for a mount into to/b from one repository and from another
    end each other. That the one for to/a:pull,push outlives one for to/a:pull says nothing of these two."""
    with ProfileRegistry(Profile(name="", ends_older="scope")) as server:
        for name in ("from/a", "from/b"):
            server.store.add_blob(name, noise(0, 1000).data)
        client = make_client(LOGIN, "destination", retries=0)
        source, other, first, second = (
            client.repository(server.host, name) for name in ("from/a", "from/b", "to/a", "to/b")
        )
        mounted = blob(noise(0, 1000).data)

        def mount(into: RegistryRepository, origin: RegistryRepository) -> None:
            answer = into.send(
                POST_MOUNT,
                uploads(into.name, mount=mounted.digest, source=origin.name),
                scopes=(Scope(into.name.path, "pull,push", apart=True), Scope(origin.name.path, "pull")),
            )
            assert answer.status == 201

        mount(first, source)
        mount(second, first)
        mount(first, source)  # with its first token, which the second one didn't end
        assert server.given == 2
        interruptions = iter(range(2 * PATIENCE))
        exchange = Transport._exchange

        def interrupted(
            transport: Transport, request: Request, origin: Origin, path: str, authorization: str
        ) -> tuple[Any, str]:
            if path.endswith("&from=from%2Fb") and next(interruptions, None) is not None:
                mount(second, first)
            return exchange(transport, request, origin, path, authorization)

        monkeypatch.setattr(Transport, "_exchange", interrupted)
        mount(second, other)
        assert refused(server) <= 6
        assert client.registries.transport(server.host).learned.ends_older


def test_a_token_that_is_good_between_two_refusals_is_not_denied() -> None:
    succession, scope = Succession(), Scope("a", "pull")
    succession.know()
    with succession.asking(frozenset({str(scope)})) as token:
        succession.give(token)
    for _ in range(2 * PATIENCE):
        succession.accept(token, scope, time.monotonic())
        assert not succession.denies(token, scope)


def given(succession: Succession, *scopes: str) -> Token:
    with succession.asking(frozenset(f"repository:{scope}" for scope in scopes)) as token:
        token.value = str(time.monotonic_ns())
        succession.give(token)
    return token


@pytest.mark.parametrize(
    ("older", "newer", "newest"),
    [
        ("a:pull", "b:pull", "c:pull,push a:pull,push"),
        ("a:pull", "a:pull,push", "b:pull,push a:pull"),
        ("a:pull,push", "a:pull", "b:pull a:push,pull"),
    ],
)
def test_what_a_token_outlives_says_nothing_of_more_similar_ones(older: str, newer: str, newest: str) -> None:
    succession = Succession()
    token = given(succession, *older.split())
    given(succession, *newer.split())
    assert succession.may_have_ended(token)
    succession.accept(token, Scope("a", "pull"), time.monotonic())
    assert not succession.may_have_ended(token)
    given(succession, *newest.split())
    assert succession.may_have_ended(token)
    succession.accept(token, Scope("a", "pull"), time.monotonic())
    assert not succession.may_have_ended(token)


def test_a_token_good_for_fewer_requests_than_another_was_not_used_up() -> None:
    """It ended because another was given: that is known before the answers to all its requests are there."""
    succession, scope = Succession(), Scope("a", "pull")
    for _ in range(2):
        long = given(succession, "a:pull")
        long.uses = 9
        for _ in range(5):
            succession.accept(long, scope, time.monotonic())
        short = given(succession, "a:pull")
        short.uses = 4
        succession.accept(short, scope, time.monotonic())
        given(succession, "a:pull")
        succession.refuse(short, scope)
        succession.refuse(short, scope)
        succession.refuse(long, scope)
    assert succession.alone


def test_where_tokens_have_ended_what_was_granted_is_asked_for_again() -> None:
    """A service that ends older tokens a moment after it gave another seems to let them live."""
    succession, scope = Succession(), Scope("a", "pull")
    older = given(succession, "a:pull")
    given(succession, "a:pull")
    succession.refuse(older, scope)
    given(succession, "b:pull")
    token = given(succession, "a:pull")
    given(succession, "a:pull")
    succession.accept(token, scope, time.monotonic())
    assert not succession.alone
    for number in range(PATIENCE + 1):
        token = given(succession, "a:pull")
        succession.refuse(token, scope)
        assert succession.denies(token, scope) is (number == PATIENCE)
    assert succession.denies(token, Scope("b", "pull"))
