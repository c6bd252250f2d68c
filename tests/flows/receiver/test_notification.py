from __future__ import annotations

import json
from typing import Any

import pytest

from flows.receiver.notification import NotANotification, Push, read
from oci.digest import Digest
from oci.reference import Repository

DIGEST = Digest("sha256:" + "ab" * 32)
PUSH = Push(Repository("registry.example", "shop/web"), "1.4.0", DIGEST)


def event(action: str = "push", host: str = "registry.example", **target: Any) -> dict[str, Any]:
    """As docker-registry writes it."""
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "size": 708,
        "digest": DIGEST,
        "length": 708,
        "repository": "shop/web",
        "url": f"http://{host}/v2/shop/web/manifests/{DIGEST}",
        "tag": "1.4.0",
    }
    return {
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7",
        "timestamp": "2026-11-24T10:11:12.13Z",
        "action": action,
        "target": described | target,
        "request": {"id": "6df24a34", "addr": "192.0.2.7:4711", "host": host, "method": "PUT", "useragent": "x"},
        "actor": {"name": "bob"},
        "source": {"addr": "node-1:5000", "instanceID": "a53db899"},
    }


def envelope(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


def harbor(*resources: Any, kind: str = "PUSH_ARTIFACT") -> bytes:
    """Harbor's default format."""
    return json.dumps(
        {"type": kind, "occur_at": 1737446601, "operator": "admin", "event_data": harbor_data(*resources)}
    ).encode()


def cloud_event(*resources: Any, kind: str = "harbor.artifact.pushed") -> bytes:
    """Harbor's CloudEvents format."""
    return json.dumps(
        {
            "specversion": "1.0",
            "requestid": "2eedfab8",
            "id": "4b2f89a6-548d-4c12-9993-a1f5790b97d2",
            "source": "/projects/1/webhook/policies/3",
            "type": kind,
            "datacontenttype": "application/json",
            "time": "2026-11-24T10:11:12Z",
            "data": harbor_data(*resources),
            "operator": "robot$library+builder",
        }
    ).encode()


def harbor_data(*resources: Any) -> dict[str, Any]:
    repository = {"date_created": 1737446600, "name": "web", "namespace": "shop", "repo_full_name": "shop/web"}
    return {"resources": list(resources), "repository": repository | {"repo_type": "private"}}


def resource(tag: str = "1.4.0", host: str = "registry.example") -> dict[str, str]:
    return {"digest": DIGEST, "tag": tag, "resource_url": f"{host}/shop/web:{tag}"}


@pytest.mark.parametrize("body", [envelope(event()), harbor(resource()), cloud_event(resource())])
def test_a_pushed_tag_is_read_from_every_format(body: bytes) -> None:
    assert read(body).pushes == (PUSH,)


def test_only_pushes_of_tags_count() -> None:
    body = envelope(
        event("pull"),
        event("delete", tag=""),
        event("mount", mediaType="application/octet-stream", tag=""),
        event(mediaType="application/octet-stream", tag=""),
        event(tag=""),
        event(),
    )

    assert read(body).pushes == (PUSH,)
    assert read(body).ignored == 5


@pytest.mark.parametrize(
    "tag",
    [
        f"sha256-{'ab' * 32}.imgpkg",
        f"shop-web-sha256-{'ab' * 32}.imgpkg",
        f"sha256-{'ab' * 32}.image-locations.imgpkg",
        f"sha256-{'ab' * 32}.sig",
        f"sha256-{'ab' * 32}",
    ],
)
def test_tags_that_tools_make_for_themselves_start_nothing(tag: str) -> None:
    told = read(envelope(event(tag=tag), event()))

    assert told.pushes == (PUSH,)
    assert told.ignored == 1


@pytest.mark.parametrize("kind", ["PULL_ARTIFACT", "DELETE_ARTIFACT", "SCANNING_COMPLETED"])
def test_other_things_that_harbor_tells_are_ignored(kind: str) -> None:
    assert read(harbor(resource(), kind=kind)) == read(cloud_event(resource(), kind="harbor.artifact.pulled"))
    assert read(harbor(resource(), kind=kind)).pushes == ()


def test_what_harbor_tells_of_an_artifact_without_a_tag_is_ignored() -> None:
    by_digest = {"digest": DIGEST, "tag": DIGEST, "resource_url": f"registry.example/shop/web@{DIGEST}"}

    assert read(harbor(by_digest, resource())).pushes == (PUSH,)


def test_the_registry_may_be_called_as_mirrors_call_it() -> None:
    inside = envelope(event(host="registry"))

    assert read(inside, "registry.example").pushes == (PUSH,)
    assert read(harbor(resource(host="core")), "registry.example").pushes == (PUSH,)
    assert read(inside).pushes == ()
    assert "?registry=HOST" in read(inside).broken[0]


@pytest.mark.parametrize(
    "broken",
    [
        event(repository="Shop/Web"),
        event(repository="shop/../web"),
        event(repository="shop/web:2"),
        event(repository=7),
        event(tag="a tag"),
        event(digest="sha256:0"),
        event(host="user:password@registry.example"),
        event(host=""),
        event() | {"request": None},
    ],
)
def test_one_broken_event_is_told_and_spoils_no_other(broken: dict[str, Any]) -> None:
    told = read(envelope(broken, event()))

    assert told.pushes == (PUSH,)
    assert len(told.broken) == 1


@pytest.mark.parametrize("oddity", [None, 7, [], {}, {"action": "push"}, {"action": "push", "target": "x"}])
def test_events_of_no_known_shape_are_ignored(oddity: object) -> None:
    assert read(envelope(oddity, event())).pushes == (PUSH,)


@pytest.mark.parametrize("data", [None, [], {}, {"resources": {}}, {"resources": [None, 3, {}]}])
def test_a_harbor_push_without_its_parts_starts_nothing(data: object) -> None:
    told = read(json.dumps({"type": "PUSH_ARTIFACT", "event_data": data}).encode())

    assert told.pushes == ()
    assert told.ignored > 0


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"\xff\xfe", b"[]", b"{}", b'{"events": 3}', b'{"type": 3}', b"[" * 100_000]
)
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    with pytest.raises(NotANotification):
        read(body)


@pytest.mark.parametrize(
    ("push", "registry"),
    [
        (event(host="registry.example/mirror"), ""),
        (event(host=f"{'l' * 64}.example"), ""),
        (event(host="a." * 50_000 + "example"), ""),
        (event(tag=True), ""),
        (event(tag=["1.4.0"]), ""),
        (event(tag="\uff11"), ""),
        (event(digest=f"{DIGEST}\n"), ""),
        (event(), "../x"),
        (event(), "registry.example/mirror"),
        (event(), "registry.example\r\nX: y"),
    ],
)
def test_who_pushes_names_a_host_and_no_more(push: dict[str, Any], registry: str) -> None:
    found = read(envelope(push), registry)

    assert (found.pushes, len(found.broken)) == ((), 1)
    assert found.broken[0].isprintable()
    assert len(found.broken[0]) < 1000
