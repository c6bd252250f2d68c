"""What is refused for its amount says what, where, how much, the bound, and the setting that raises it; which works."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.command import transship
from tests.support.content import Content, compact, image, index, push

BASE = image(1)
BIG = Content(BASE.media_type, compact(json.loads(BASE.raw) | {"annotations": {"a": "x" * (5 << 20)}}), BASE.blobs)
WIDE = Content(
    index([BASE]).media_type,
    compact({**json.loads(index([BASE]).raw), "manifests": [BASE.descriptor()] * 20_000}),
    (),
    (BASE,),
)
RAISED = ("--registry-manifest-limit", "16MiB")


def test_a_manifest_of_more_than_the_limit_goes_where_it_can_be_read_again(tmp_path: Path) -> None:
    with StrictRegistry(Features(manifest_limit=64 << 20)) as server:
        push(server.url, "shop/big", BIG, "v1")
        source, layout, archive = f"{server.host}/shop/big:v1", f"oci:{tmp_path}/layout", f"{tmp_path}/big.tar"
        refused = transship("copy", "-i", source, "--to-repo", f"{server.host}/shop/to")
        assert refused.code == 1
        assert "longer than 4194304 bytes" in refused.err
        assert f"source {server.host}" in refused.err
        assert "--registry-manifest-limit" in refused.err
        assert transship("copy", "-i", source, "--to-repo", f"{server.host}/shop/to", *RAISED).code == 0
        assert transship("copy", "-i", source, "--to-tar", archive, *RAISED).code == 0
        assert transship("copy", "--tar", archive, "--to-repo", f"{server.host}/shop/back", *RAISED).code == 0

        form = ("--to-tar", f"{tmp_path}/layout.tar", "--tar-format", "oci-layout")
        for to in (("--to-repo", layout), form):
            done = transship("copy", "-i", source, *to, *RAISED)
            assert done.code == 1, to
            assert f"has {len(BIG.raw)} bytes" in done.err
            assert BIG.digest in done.err
            assert "4194304 at most" in done.err
        assert not (tmp_path / "layout.tar").exists()
        assert transship("tag", "list", "-i", layout).out == ""


def test_a_list_of_too_many_says_how_many_and_a_page_names_no_setting_that_is_none() -> None:
    with StrictRegistry(Features(manifest_limit=64 << 20)) as server:
        push(server.url, "shop/wide", WIDE, "v1")
        wide = transship("copy", "-i", f"{server.host}/shop/wide:v1", "--to-repo", f"{server.host}/shop/to")
        assert wide.code == 1
        assert "20000 are listed, and more than 10000 entries" in wide.err
        assert f"source {server.host}/shop/wide@{WIDE.digest}" in wide.err
        page = compact({"name": "shop/wide", "tags": ["v" * 100 + str(number) for number in range(200_000)]})
        with FaultProxy(server.port, Fault(path="/tags/list", replace_body=page)) as proxy:
            listed = transship("tag", "list", "-i", f"{proxy.host}/shop/wide")
        assert listed.code == 1
        assert "longer than 16777216 bytes" in listed.err
        assert "manifest-limit" not in listed.err
        with FaultProxy(server.port, Fault(path="/tags/list", status=429, headers={"Retry-After": "9999"})) as proxy:
            waits = transship("tag", "list", "-i", f"{proxy.host}/shop/wide")
        assert "9999 s" in waits.err
        assert "--registry-retry-budget" in waits.err
