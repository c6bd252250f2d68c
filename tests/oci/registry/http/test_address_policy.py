from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from typing import Any

import pytest

from oci.errors import CancelToken, InvalidReference, Refused
from oci.registry.http import address_policy
from oci.registry.http.address_policy import ALLOWED, AddressPolicy, Reach, host_of, is_loopback, reach_of
from oci.registry.http.errors import Peer
from oci.registry.http.origin import origin_of, split_url
from oci.registry.options import RegistryOptions
from tests.oci.registry.conftest import Client

ADDRESSES = {
    "registry.example": ["93.184.216.34"],
    "storage.example": ["93.184.216.35"],
    "inside.example": ["10.1.2.3"],
    "mixed.example": ["93.184.216.36", "169.254.169.254"],
    "private-registry.example": ["192.168.1.5"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: bytes, *rest: Any, **more: Any) -> list[Any]:
        host = name.decode()
        found = ADDRESSES.get(host) or ([host] if host.replace(".", "").isdigit() or ":" in host else [])
        if not found:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def guard(
    registry: str,
    *,
    allow_private: bool = False,
    http_allowed: bool = False,
    named: Collection[str] | None = None,
) -> AddressPolicy:
    settings = RegistryOptions(allow_private_redirects=allow_private, insecure=http_allowed)
    return AddressPolicy(Peer("source", registry, settings, CancelToken()), named)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://inside.example/x",
        "https://mixed.example/x",
        "http://storage.example/x",
        "ftp://storage.example/x",
        "https://user:secret@storage.example/x",
        "https:///x",
    ],
)
def test_a_public_registry_may_not_send_us_there(url: str, make_client: Callable[..., Client]) -> None:
    with pytest.raises(Refused) as caught:
        make_client(side="source").registries.transport("registry.example").resolve(url, "")

    assert "source registry.example" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://storage.example/x?signature=1", "https://registry.example/x"])
def test_where_it_may_send_us(url: str) -> None:
    guard("registry.example").check(split_url(url)[0], "a redirect")


def test_a_private_registry_may_point_into_its_own_network() -> None:
    guard("private-registry.example").check(split_url("https://inside.example/x")[0], "a redirect")
    guard("registry.example", allow_private=True).check(split_url("https://inside.example/x")[0], "a redirect")
    guard("127.0.0.1:5000").check(split_url("http://127.0.0.1:6000/x")[0], "a redirect")
    guard("registry.example", http_allowed=True).check(split_url("http://storage.example/x")[0], "a redirect")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("x.localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("reg.local", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_hosts_of_registries() -> None:
    assert [host_of(one) for one in ("a.example", "a.example:5000", "[::1]:5000")] == ["a.example", "a.example", "::1"]


@pytest.mark.parametrize(
    ("registry", "named", "allowed"),
    [
        ("private-registry.example", {"registry.example"}, False),
        ("127.0.0.1:5000", {"registry.example"}, False),
        ("127.0.0.1:5000", {"private-registry.example"}, False),
        ("private-registry.example", {"inside.example"}, True),
        ("private-registry.example", {"registry.example", "localhost:5000"}, True),
        ("127.0.0.1:5000", {"localhost:6000"}, True),
        ("127.0.0.1:5000", {"127.0.0.1:5000"}, True),
        ("storage.example", {"registry.example"}, True),
        ("private-registry.example", (), True),
        ("private-registry.example", None, True),
    ],
)
def test_a_registry_that_a_lock_names_is_no_nearer_than_those_that_the_user_named(
    registry: str, named: set[str] | None, allowed: bool
) -> None:
    def connect(allow_private: bool) -> None:
        policy = guard(registry, allow_private=allow_private, http_allowed=True, named=named)
        policy.addresses(origin_of(registry))

    connect(True)
    if allowed:
        connect(False)
        return
    with pytest.raises(Refused, match=ALLOWED.split()[0]):
        connect(False)


def test_no_setting_leads_to_the_credentials_of_a_machine() -> None:
    policy = guard("169.254.169.254", allow_private=True, http_allowed=True, named={"registry.example"})
    with pytest.raises(Refused):
        policy.addresses(origin_of("169.254.169.254"))


@pytest.mark.parametrize("remembered", [60.0, 0.0], ids=["remembered", "asked again"])
def test_a_name_that_answers_otherwise_the_second_time_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, remembered: float
) -> None:
    """DNS rebinding: judged as public, and on loopback when it is connected to."""
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def resolve(host: bytes, *rest: Any, **more: Any) -> list[Any]:
        address = next(answers) if host == b"rebound.example" else "93.184.216.35"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(address_policy, "_REMEMBERED", remembered)
    policy = guard("registry.example")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy.check(split_url("https://rebound.example/x")[0], "a redirect")
    if remembered:
        assert policy.addresses(origin_of("rebound.example")) == ("93.184.216.34",)
    else:
        with pytest.raises(Refused):
            policy.addresses(origin_of("rebound.example"))


@pytest.mark.parametrize(
    "host",
    [
        "::ffff:169.254.169.254",  # mapped
        "::169.254.169.254",  # compatible
        "64:ff9b::a9fe:a9fe",  # NAT64
        "64:ff9b:1::a9fe:a9fe",  # NAT64 of one's own
        "2002:a9fe:a9fe::1",  # 6to4
        "2001:0:4136:e378:8000:63bf:5601:5601",  # Teredo
        "::ffff:0:169.254.169.254",  # translated
        "fe80::1",
        "64:ff9b:1:a9fe:a9:fe00::",  # NAT64 of one's own, spread over a prefix of 48 bits
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1::a9:fea9:fe00:0",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "192.0.0.192",
        "100.100.100.200",
        "168.63.129.16",
        "2852039166",  # 169.254.169.254 as one number
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
    ],
)
def test_an_address_within_an_address_is_judged(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(OSError):  # as getaddrinfo reads numbers
        monkeypatch.setitem(ADDRESSES, host, [socket.inet_ntoa(socket.inet_aton(host))])
    name = f"[{host}]" if ":" in host else host
    for registry in ("registry.example", "192.168.1.5:5000"):
        with pytest.raises((Refused, InvalidReference)):
            guard(registry, allow_private=True).check(split_url(f"https://{name}/x")[0], "a redirect")


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("2606:4700::1", Reach.PUBLIC),
        ("64:ff9b::808:808", Reach.PUBLIC),
        ("3fff::1", Reach.PRIVATE),  # documentation (RFC 9637)
        ("5f00::1", Reach.PRIVATE),  # segment routing (RFC 9602)
        ("4000::1", Reach.PRIVATE),  # nobody's yet
        ("fec0::1", Reach.PRIVATE),
        ("100::1", Reach.PRIVATE),
        ("64:ff9b:1:7f00:0:100::", Reach.LOOPBACK),
        ("2001:0:7f00:1::", Reach.LOOPBACK),
        ("1.1.1.1\0", Reach.FORBIDDEN),
        ("127.1", Reach.FORBIDDEN),
    ],
)
def test_what_is_not_known_to_be_public_is_not(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach
