"""`transship tag` and `transship describe`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from oci.registry.options import DEFAULT_CONCURRENCY
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.command import transship
from tests.support.content import bundle, image, push, signature_tag
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/described", seed=11)


@pytest.fixture(scope="module")
def relocated(shop: Shop, other_registry: DockerRegistry) -> str:
    target = f"{other_registry.host}/cli/described"
    assert transship("copy", "-b", shop.reference, "--to-repo", target, "--cosign-signatures").code == 0
    return target


def test_a_list_of_tags_in_a_pipe_hides_what_tools_made(relocated: str, shop: Shop) -> None:
    done = transship("tag", "list", "-i", relocated)

    assert (done.code, done.err) == (0, "")
    assert done.out == f"1.4.0\t\n{signature_tag(shop.web)}\t\n"
    everything = transship("tag", "ls", "-i", relocated, "--imgpkg-internal-tags")
    assert everything.out.count(".imgpkg\t\n") == 12
    assert sorted(everything.out.splitlines()) == everything.out.splitlines()


def test_digests_as_json_and_as_a_table(relocated: str, shop: Shop) -> None:
    document = json.loads(transship("tag", "list", "-i", relocated, "--digests", "--json").out)
    (table,) = document["Tables"]
    assert table["Content"] == "tags"
    assert table["Header"] == {"digest": "Digest", "name": "Name"}
    assert table["Rows"][0] == {"digest": shop.bundle.digest, "name": "1.4.0"}

    signature, width = signature_tag(shop.web), len(signature_tag(shop.web))
    assert transship("tag", "list", "-i", relocated, "--digests", "--tty").out == (
        "Tags\n\n"
        f"{'Name':{width}}  Digest  \n"
        f"{'1.4.0':{width}}  {shop.bundle.digest}  \n"
        f"{signature}  {shop.signature.digest}  \n"
        "\n2 tags\n\nSucceeded\n"
    )


def test_columns_can_be_chosen_and_an_unknown_one_is_an_error(relocated: str, shop: Shop) -> None:
    for digests in (["--digests"], []):
        chosen = transship("tag", "list", "-i", relocated, *digests, "--column", "digest")
        assert chosen.out.splitlines()[0] == f"{shop.bundle.digest}\t"
    both = transship("tag", "list", "-i", relocated, "--column", "Digest,name")
    assert both.out.splitlines()[0] == f"1.4.0\t{shop.bundle.digest}\t"
    unknown = transship("tag", "list", "-i", relocated, "--column", "size")
    assert unknown.code == 2
    assert "unknown column 'size'" in unknown.err


def test_the_digests_of_many_tags_are_asked_for_over_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    content = image(1)
    with StrictRegistry() as server:
        push(server.url, "many/tags", content, "first")
        repository = server.store.repository("many/tags")
        repository.tags.update({f"v{number:05}": content.digest for number in range(2_000)})
        callers: list[object] = []
        accept = server._server.process_request

        def counting(request: Any, caller: Any) -> None:
            callers.append(caller)
            accept(request, caller)

        monkeypatch.setattr(server._server, "process_request", counting)
        done = transship("tag", "list", "-i", f"{server.host}/many/tags", "--digests")

    assert done.code == 0, done.err
    assert done.out.count(f"\t{content.digest}\t\n") == 2_001
    assert len(callers) <= DEFAULT_CONCURRENCY + 1


def test_a_tag_is_resolved_without_a_newline(relocated: str, shop: Shop) -> None:
    assert transship("tag", "resolve", "-i", f"{relocated}:1.4.0").out == f"{relocated}@{shop.bundle.digest}"
    missing = transship("tag", "resolve", "-i", f"{relocated}:no")
    assert missing.code == 1
    assert "MANIFEST_UNKNOWN: manifest unknown (404)" in missing.err


def test_tag_alone_names_its_commands() -> None:
    done = transship("tag")

    assert done.code == 2
    assert "list, resolve" in done.err


def test_describe_as_yaml_is_imgpkgs_document(relocated: str, shop: Shop, registry: DockerRegistry) -> None:
    done = transship("describe", "-b", f"{relocated}:1.4.0", "-o", "yaml")

    assert done.code == 0, done.err
    first, _, rest = done.out.partition("\n")
    assert first == f"sha: {shop.bundle.digest}"
    body = yaml.safe_load(rest)
    assert list(body) == sorted(body)
    assert body["image"] == f"{relocated}@{shop.bundle.digest}"
    assert body["metadata"] == {}
    assert body["layers"] == [{"digest": shop.bundle.blobs[0].descriptor()["digest"]}]
    images = body["content"]["images"]
    web = images[shop.web.digest]
    assert web == {
        "image": f"{relocated}@{shop.web.digest}",
        "imageType": "Image",
        "layers": [{"digest": shop.web.blobs[0].descriptor()["digest"]}],
        "origin": f"{registry.host}/cli/described/web@{shop.web.digest}",
    }
    signed = images[shop.signature.digest]
    assert (signed["imageType"], signed["annotations"]) == ("Signature", {"tag": signature_tag(shop.web)})
    assert [one["imageType"] for one in images.values()].count("Internal") == 1
    (nested,) = body["content"]["bundles"].values()
    assert shop.database.digest in nested["content"]["images"]
    assert images[shop.tools.digest]["layers"] == [{"digest": shop.tools.children[0].blobs[0].descriptor()["digest"]}]


def test_describe_as_text(relocated: str, shop: Shop) -> None:
    lines = transship("describe", "-b", f"{relocated}:1.4.0", "--layers=false").out.splitlines()

    assert lines[:4] == [
        f"Bundle SHA: {shop.bundle.digest}",
        "",
        "Images:",
        f"  - Image: {relocated}@{shop.nested.digest}",
    ]
    assert lines[4] == "    Type: Bundle"
    assert f"    - Image: {relocated}@{shop.database.digest}" in lines
    assert "    Type: Signature" in lines
    assert not [line for line in lines if "Layers" in line]


def test_nested_bundles_stand_apart_in_text(registry: DockerRegistry, repository: str) -> None:
    empty = bundle([])
    first = push(registry.url, f"{repository}/first", empty)
    second = push(registry.url, f"{repository}/second", bundle([first]))
    third = push(registry.url, f"{repository}/third", bundle([second, first]))
    push(registry.url, repository, bundle([third, second]), "v1")

    lines = transship("describe", "-b", f"{registry.host}/{repository}:v1", "--layers=false").out.splitlines()

    blank = [place for place, line in enumerate(lines) if not line]
    assert [lines[place + 1].strip() for place in blank[1:]] == [f"- Image: {first}", f"- Image: {second}"]


def test_describe_without_signatures_and_of_a_bundle_at_its_source(shop: Shop) -> None:
    done = transship("describe", "-b", shop.reference, "--cosign-artifacts=false")

    assert done.code == 0, done.err
    assert "Signature" not in done.out
    assert "Internal" not in done.out
    assert "/web@" in done.out


def test_a_signature_that_the_registry_will_not_tell_of_is_an_error_of_its_entry(
    registry: DockerRegistry, repository: str
) -> None:
    push(registry.url, repository, bundle([]), "v1")
    with FaultProxy(registry.port, Fault(method="HEAD|GET", path=r"\.sig$", status=403)) as proxy:
        done = transship("describe", "-b", f"{proxy.host}/{repository}:v1", "-o", "yaml")

    assert done.code == 0, done.err
    (entry,) = yaml.safe_load(done.out.partition("\n")[2])["content"]["images"].values()
    assert "403" in entry["error"]


def test_only_bundles_are_described(shop: Shop, registry: DockerRegistry) -> None:
    done = transship("describe", "-b", f"{registry.host}/cli/described/web:v1")

    assert done.code == 2
    assert "Only bundles can be described, and" in done.err


def test_an_empty_bundle_is_its_digest_and_a_blank_line(registry: DockerRegistry, repository: str) -> None:
    content = bundle([])
    push(registry.url, repository, content, "v1")

    assert transship("describe", "-b", f"{registry.host}/{repository}:v1").out == f"Bundle SHA: {content.digest}\n\n"
