from __future__ import annotations

import socket
from typing import Any

import pytest

from oci.errors import Refused
from oci.registry.http.address_policy import AddressPolicy, host_of, is_loopback

ADDRESSES = {
    "registry.example": ["93.184.216.34"],
    "storage.example": ["93.184.216.35"],
    "inside.example": ["10.1.2.3"],
    "mixed.example": ["93.184.216.36", "169.254.169.254"],
    "private-registry.example": ["192.168.1.5"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, *rest: Any, **more: Any) -> list[Any]:
        found = ADDRESSES.get(host) or ([host] if host.replace(".", "").isdigit() or ":" in host else [])
        if not found:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def guard(registry: str, *, allow_private: bool = False, http_allowed: bool = False) -> AddressPolicy:
    return AddressPolicy(registry, side="source", allow_private=allow_private, http_allowed=http_allowed)


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
def test_a_public_registry_may_not_send_us_there(url: str) -> None:
    with pytest.raises(Refused) as caught:
        guard("registry.example").check(url, "a redirect")

    assert "source registry.example" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://storage.example/x?signature=1", "https://registry.example/x"])
def test_where_it_may_send_us(url: str) -> None:
    guard("registry.example").check(url, "a redirect")


def test_a_private_registry_may_point_into_its_own_network() -> None:
    guard("private-registry.example").check("https://inside.example/x", "a redirect")
    guard("registry.example", allow_private=True).check("https://inside.example/x", "a redirect")
    guard("127.0.0.1:5000").check("http://127.0.0.1:6000/x", "a redirect")
    guard("registry.example", http_allowed=True).check("http://storage.example/x", "a redirect")


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
