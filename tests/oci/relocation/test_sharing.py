"""Several relocations of one session at one registry: what they share, and what keeps them apart."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from oci.digest import Digest, digest_of
from oci.errors import Cancelled, CancelToken
from oci.manifest import parse_manifest
from oci.reference import LayoutFolder, Repository
from oci.relocation.driver import Relocation
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import BlobLedger
from oci.relocation.transfer import put_manifest, share_reads
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import StrictRegistry
from tests.support.content import image, index, noise, push, push_blob
from tests.support.relocating import session

MIB = 1 << 20
HERE, THERE = Repository("corp.example", "mirror/here"), Repository("corp.example", "mirror/there")
BLOB = digest_of(b"blob")


def five(registry: DockerRegistry, repository: str) -> list[str]:
    """References of five images that share a layer of 8 MiB."""
    base = noise(1, 8 * MIB)
    references = []
    for number in range(5):
        push(registry.url, f"{repository}/{number}", image(number + 10, layers=[base, noise(number + 20, 1000)]), "1")
        references.append(f"{registry.host}/{repository}/{number}:1")
    return references


@pytest.mark.parametrize("tag_keeps_alive", [False, True])
def test_a_layer_that_five_repositories_share_is_sent_once(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tag_keeps_alive: bool
) -> None:
    with session() as one:

        def copy(pair: tuple[int, str]) -> None:
            to = f"{other_registry.host}/{repository}/to/{pair[0]}"
            Relocation(one, RelocationRequest(image=pair[1], to=to, tag_keeps_alive=tag_keeps_alive)).run()

        with ThreadPoolExecutor(5) as threads:
            list(threads.map(copy, enumerate(five(registry, repository))))
        receipt = one.meter.receipt()

    assert receipt.bytes_written <= 9_200_000
    assert receipt.bytes_mounted == 4 * 8 * MIB


def test_shared_reads_bring_a_layer_once_to_each_registry(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    [source, *_] = five(registry, repository)
    places = [f"{host}/{repository}/to/{n}" for host in (registry.host, other_registry.host) for n in range(2)]
    with session() as one:
        requests = [RelocationRequest(image=source, to=to) for to in places]
        plans = [make_plan(one, request) for request in requests]
        share_reads(one, plans)

        def run(pair: tuple[RelocationRequest, int]) -> None:
            Relocation(one, pair[0], plan=plans[pair[1]]).run()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(run, zip(requests, range(4), strict=True)))
        receipt = one.meter.receipt()

    assert receipt.bytes_written < 8 * MIB + 100_000
    assert receipt.bytes_mounted >= 3 * 8 * MIB


def test_a_shared_read_is_charged_to_the_registries_that_it_goes_to(
    registry: DockerRegistry,
    other_registry: DockerRegistry,
    destination: StrictRegistry,
    repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A registry with a small bandwidth that needs none of it would slow down the others."""
    push(registry.url, repository, image(1, layers=[noise(1, 100_000)]), "shared")
    push(registry.url, repository, image(2, layers=[noise(2, 1000)]), "alone")
    charged: list[set[str]] = []
    with session() as one:
        monkeypatch.setattr(one.bandwidth, "take", lambda _, registries: charged.append({*registries}))
        shared, alone = (f"{registry.host}/{repository}:{tag}" for tag in ("shared", "alone"))
        places = [f"{other_registry.host}/{repository}/to/{n}" for n in range(2)]
        requests = [RelocationRequest(image=shared, to=to) for to in places]
        requests.append(RelocationRequest(image=alone, to=f"{destination.host}/{repository}"))
        plans = [make_plan(one, request) for request in requests]
        share_reads(one, plans)
        for request, plan in zip(requests, plans, strict=True):
            Relocation(one, request, plan=plan).run()

    assert any(other_registry.host in registries for registries in charged)
    assert not any({other_registry.host, destination.host} <= registries for registries in charged)


def test_an_interrupted_run_is_found_again_in_a_repository_without_tags(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    [source, *_] = five(registry, repository)
    with httpx.Client(base_url=other_registry.url) as http:
        push_blob(http, repository, noise(1, 8 * MIB).data)

    with session() as one:
        Relocation(one, RelocationRequest(image=source, to=f"{other_registry.host}/{repository}")).run()
        receipt = one.meter.receipt()

    assert receipt.bytes_skipped == 8 * MIB
    assert receipt.bytes_written < 100_000


def test_an_index_and_its_children_may_be_pushed_side_by_side(registry: DockerRegistry, repository: str) -> None:
    """docker-registry 2.8.2 answers DIGEST_INVALID to an index while one of its children is being pushed again: without
    the gate to some 20 of 150."""
    child = image(1)
    whole = index([child])
    push(registry.url, repository, whole, "whole")
    stop = threading.Event()
    with session() as one, ThreadPoolExecutor(1) as threads:
        destination = one.destination(Repository(registry.host, repository))

        def push_child() -> None:
            while not stop.is_set():
                put_manifest(one, destination, parse_manifest(child.raw), "child")

        running = threads.submit(push_child)
        try:
            for _ in range(40):
                put_manifest(one, destination, parse_manifest(whole.raw), "whole")
        finally:
            stop.set()
        running.result()


def test_a_claim_is_waited_for_by_other_repositories_only() -> None:
    ledger = BlobLedger()
    own, others = ledger.claim(HERE, [BLOB])

    assert (set(own), others) == ({BLOB}, {})
    assert ledger.claim(HERE, [BLOB]) == ({}, {})
    assert ledger.claim(Repository("other.example", "mirror/here"), [BLOB])[1] == {}
    assert ledger.claim(LayoutFolder("/srv"), [BLOB]) == ({}, {})
    waited = ledger.claim(THERE, [BLOB])[1]
    ledger.release(own, stored=True)
    waited[BLOB].wait(CancelToken())

    assert ledger.owners(THERE, BLOB) == (HERE,)
    assert ledger.owners(HERE, BLOB) == ()
    assert ledger.claim(THERE, [BLOB]) == ({}, {})


def test_a_claim_that_failed_leaves_nothing_behind() -> None:
    ledger = BlobLedger()
    own, _ = ledger.claim(HERE, [BLOB])
    _, others = ledger.claim(THERE, [BLOB])
    ledger.release(own, stored=False)
    others[BLOB].wait(CancelToken())

    assert ledger.owners(THERE, BLOB) == ()
    assert set(ledger.claim(THERE, [BLOB])[0]) == {Digest(BLOB)}


def test_who_waits_for_a_claim_can_be_cancelled() -> None:
    ledger = BlobLedger()
    ledger.claim(HERE, [BLOB])
    _, others = ledger.claim(THERE, [BLOB])
    token = CancelToken()
    token.cancel()

    with pytest.raises(Cancelled):
        others[BLOB].wait(token)
