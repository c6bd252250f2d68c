"""Kinds of attached artifacts x ways to travel: each arrives, and is found by plain HTTP, on disk, and by skopeo."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from oci.archive.entry import IMGPKG, OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import Incomplete
from oci.reference import parse_any
from oci.relocation.verify import verify_names
from oci.signatures.artifacts import ALL, ArtifactSelection
from oci.signatures.attached import DEPTH
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import skopeo
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.archiving import archived, imported
from tests.support.attaching import NOTATION, SPDX, Signed, lost_at, lost_in_layout, push_signed, signed_index
from tests.support.content import artifact, bundle, image, index, push
from tests.support.relocating import copied, session

REGISTRIES = [True, False]
NAMES = ["API", "tags"]


@contextmanager
def source_of(signed: Signed, *, api: bool) -> Iterator[tuple[StrictRegistry, str]]:
    with StrictRegistry(Features(referrers=api)) as server:
        push_signed(server.url, "shop/web", signed, "1.0", api=api)
        yield server, f"{server.host}/shop/web:1.0"


@pytest.mark.parametrize("there", REGISTRIES, ids=["to API", "to tags"])
@pytest.mark.parametrize("here", REGISTRIES, ids=["from API", "from tags"])
def test_all_that_is_attached_travels_between_registries(here: bool, there: bool) -> None:
    signed = signed_index(1)
    with source_of(signed, api=here) as (_, reference), StrictRegistry(Features(referrers=there)) as destination:
        copied(f"{destination.host}/mirror/web", image=reference, artifacts=ALL)

        assert lost_at(destination.url, "mirror/web", signed, api=there) == []


def test_skopeo_lists_the_tags_of_cosign_in_a_registry_that_is_not_ours(
    registry: DockerRegistry, repository: str
) -> None:
    signed = signed_index(2)
    with source_of(signed, api=True) as (_, reference):
        copied(f"{registry.host}/{repository}", image=reference, artifacts=ALL)

    listed = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry.host}/{repository}"))["Tags"]
    assert set(signed.tags) <= set(listed)
    assert lost_at(registry.url, repository, signed, api=False) == []


def test_skopeo_takes_nothing_along_that_is_attached(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    """The line of skopeo in the book's table of tools."""
    signed = signed_index(20)
    with source_of(signed, api=True) as (_, reference):
        copied(f"{registry.host}/{repository}", image=reference, artifacts=ALL)
    options = ("--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    places = [f"docker://{server.host}/{repository}:1.0" for server in (registry, other_registry)]
    skopeo("copy", *options, *places)

    assert other_registry.repository_tags(repository) == ["1.0"]
    assert set(lost_at(other_registry.url, repository, signed, api=False)) >= set(signed.tags)


def test_a_layout_holds_all_of_it_and_gives_it_on(tmp_path: Path) -> None:
    signed = signed_index(3)
    with source_of(signed, api=True) as (_, reference):
        copied(f"oci:{tmp_path}/layout", image=reference, artifacts=ALL)

    assert lost_in_layout(tmp_path / "layout", signed) == []
    with StrictRegistry() as destination:
        copied(f"{destination.host}/mirror/web", image=f"oci:{tmp_path}/layout:1.0", artifacts=ALL)
        assert lost_at(destination.url, "mirror/web", signed, api=True) == []


@pytest.mark.parametrize("there", REGISTRIES, ids=NAMES)
@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
def test_an_archive_holds_all_of_it_and_gives_it_on(tmp_path: Path, form: str, there: bool) -> None:
    signed = signed_index(4)
    path = tmp_path / "web.tar"
    with source_of(signed, api=True) as (_, reference):
        archived(path, image=reference, artifacts=ALL, options=ExportOptions(format=form))
    if form == OCI_LAYOUT:
        (tmp_path / "layout").mkdir()
        subprocess.run(["tar", "--extract", "--file", path, "--directory", tmp_path / "layout"], check=True)
        assert lost_in_layout(tmp_path / "layout", signed) == []

    with StrictRegistry(Features(referrers=there)) as destination:
        imported(f"{destination.host}/mirror/web", path)
        assert lost_at(destination.url, "mirror/web", signed, api=there) == []


@pytest.mark.parametrize("form", [IMGPKG, OCI_LAYOUT])
def test_a_delta_that_leaves_an_image_out_brings_what_was_attached_since(tmp_path: Path, form: str) -> None:
    signed = signed_index(5)
    bare = Signed(signed.root, {}, {})
    base, delta = tmp_path / "base.tar", tmp_path / "delta.tar"
    with StrictRegistry() as origin, StrictRegistry() as destination:
        reference = f"{origin.host}/shop/web:1.0"
        push_signed(origin.url, "shop/web", bare, "1.0", api=True)
        archived(base, image=reference, artifacts=ALL, options=ExportOptions(format=form))
        imported(f"{destination.host}/mirror/web", base)
        push_signed(origin.url, "shop/web", signed, "1.0", api=True)

        report = archived(
            delta, image=reference, artifacts=ALL, options=ExportOptions(format=form, delta_from=str(base))
        )
        imported(f"{destination.host}/mirror/web", delta)

        assert lost_at(destination.url, "mirror/web", signed, api=True) == []
        assert report.left_out > 0


@pytest.mark.parametrize("there", REGISTRIES, ids=NAMES)
def test_what_is_attached_late_arrives_with_the_next_copy(there: bool) -> None:
    signed = signed_index(6)
    with StrictRegistry() as origin, StrictRegistry(Features(referrers=there)) as destination:
        push_signed(origin.url, "shop/web", Signed(signed.root, {}, {}), "1.0", api=True)
        to = f"{destination.host}/mirror/web"
        copied(to, image=f"{origin.host}/shop/web:1.0", artifacts=ALL)
        push_signed(origin.url, "shop/web", signed, "1.0", api=True)

        again = copied(to, image=f"{origin.host}/shop/web:1.0", artifacts=ALL)
        unchanged = copied(to, image=f"{origin.host}/shop/web:1.0", artifacts=ALL)

        assert lost_at(destination.url, "mirror/web", signed, api=there) == []
        assert not again.plan.unchanged
        assert unchanged.plan.unchanged


@pytest.mark.parametrize("late", [False, True], ids=["at first", "late"])
def test_what_nested_images_of_bundles_have_travels(late: bool) -> None:
    signed = signed_index(7)
    with StrictRegistry() as origin, StrictRegistry() as destination:
        bare = Signed(signed.root, {}, {})
        listed = push_signed(origin.url, "shop/web", bare if late else signed, api=True)
        nested = push(origin.url, "shop/nested", bundle([listed]))
        push(origin.url, "shop/bundle", bundle([nested]), "1.0")
        source, to = f"{origin.host}/shop/bundle:1.0", f"{destination.host}/mirror/shop"
        if late:
            copied(to, bundle=source, artifacts=ALL)
            push_signed(origin.url, "shop/web", signed, api=True)
        copied(to, bundle=source, artifacts=ALL)

        # The signatures stay in the repository of the image that they belong to: all of it is in one here.
        assert lost_at(destination.url, "mirror/shop", signed, api=True) == []


def test_only_part_of_an_archive_brings_what_belongs_to_that_part(tmp_path: Path) -> None:
    signed, other = signed_index(8), image(899)
    path = tmp_path / "shop.tar"
    lock = tmp_path / "images.yml"
    with StrictRegistry() as origin, StrictRegistry() as destination:
        references = [
            push_signed(origin.url, "shop/web", signed, api=True),
            push(origin.url, "shop/other", other),
        ]
        lines = ["apiVersion: imgpkg.carvel.dev/v1alpha1", "kind: ImagesLock", "images:"]
        lock.write_text("\n".join([*lines, *(f"- image: {one}" for one in references), ""]))
        archived(path, lock=str(lock), artifacts=ALL)

        imported(f"{destination.host}/mirror/web", path, only=(signed.root.digest,))

        assert lost_at(destination.url, "mirror/web", signed, api=True) == []
        assert httpx.head(f"{destination.url}/v2/mirror/web/manifests/{other.digest}").status_code == 404


def test_referrers_from_before_a_registry_got_the_api_are_found(tmp_path: Path) -> None:
    """The API is there and says nothing; the tag of the time before lists them."""
    signed = signed_index(9)
    with StrictRegistry(Features(referrers=False)) as origin, StrictRegistry() as destination:
        push_signed(origin.url, "shop/web", signed, "1.0", api=False)
        origin.features = Features(referrers=True)

        copied(f"{destination.host}/mirror/web", image=f"{origin.host}/shop/web:1.0", artifacts=ALL)

        assert lost_at(destination.url, "mirror/web", signed, api=True) == []


def test_attachments_are_followed_to_a_stated_depth() -> None:
    subject = image(950)
    with StrictRegistry() as origin, StrictRegistry() as destination:
        push(origin.url, "shop/web", subject, "1.0")
        chain = [subject]
        for number in range(12):
            chain.append(artifact(951 + number, subject=chain[-1]))
            push(origin.url, "shop/web", chain[-1])

        with pytest.raises(Incomplete) as caught:
            copied(f"{destination.host}/mirror/web", image=f"{origin.host}/shop/web:1.0", artifacts=ALL)

        [failed] = caught.value.failures
        assert f"followed {DEPTH} times" in str(failed)


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (("all",), {"sig", "att", "sbom", "bundle", "notation", "spdx"}),
        ((), set()),
        (("none",), set()),
        (("cosign",), {"sig", "att", "sbom"}),
        (("sig",), {"sig"}),
        (("referrers",), {"bundle", "notation", "spdx"}),
        (("all", "!sbom", "!application/spdx+json"), {"sig", "att", "bundle", "notation"}),
        (("!referrers",), {"sig", "att", "sbom"}),
        (("application/vnd.dev.sigstore.*",), {"bundle"}),
        (("att", "application/vnd.cncf.*"), {"att", "notation"}),
    ],
)
def test_what_is_wanted_is_said_by_kind_and_artifact_type(words: tuple[str, ...], kinds: set[str]) -> None:
    signed = signed_index(11)
    ends = {end: f"sha256-{signed.root.hex}.{end}" for end in ("sig", "att", "sbom")}
    of_root = signed.referrers[signed.root.digest]
    spdx = next(found[0] for subject, found in signed.referrers.items() if subject != signed.root.digest)
    digests = {"bundle": of_root[0].digest, "notation": of_root[1].digest, "spdx": spdx.digest}
    assert json.loads(spdx.raw)["artifactType"] == SPDX
    assert json.loads(of_root[1].raw)["artifactType"] == NOTATION
    with source_of(signed, api=True) as (_, reference), StrictRegistry() as destination:
        copied(f"{destination.host}/mirror/web", image=reference, artifacts=words)

        base = f"{destination.url}/v2/mirror/web/manifests"
        names = {**ends, **digests}
        assert {kind for kind, name in names.items() if httpx.head(f"{base}/{name}").status_code == 200} == kinds
    assert bool(ArtifactSelection(words)) == bool(kinds)


def test_signatures_of_many_children_cost_one_list(tmp_path: Path) -> None:
    """Signatures of children cost one list, and not three requests for each."""
    content = index([image(1200 + number) for number in range(8)])
    with StrictRegistry() as origin:
        push(origin.url, "shop/web", content, "1.0")
        copied(f"oci:{tmp_path}/layout", image=f"{origin.host}/shop/web:1.0", artifacts=("cosign",))

        asked = [seen for seen in origin.requests() if ".sig" in seen.path]
        assert asked == []


def test_a_copy_says_how_many_attached_artifacts_it_left(tmp_path: Path) -> None:
    """One request for the list of tags, and none where nothing is copied or nothing can be left."""
    signed = signed_index(12)
    with source_of(signed, api=True) as (origin, reference), StrictRegistry() as destination:
        to = f"{destination.host}/mirror/web"
        first = copied(to, image=reference)
        lists = [seen for seen in origin.requests() if "/tags/list" in seen.path]
        again = copied(to, image=reference)
        chosen = copied(to, image=reference, artifacts=("all", "!sbom", f"!{SPDX}"))

        assert first.plan.attached_left == len(signed.tags)
        assert len(lists) == 1
        assert (again.plan.attached_left, again.plan.unchanged) == (0, True)
        assert chosen.plan.attached_left == 2
        assert first.to_dict()["attached_left"] == len(signed.tags)


@pytest.mark.parametrize("through", ["layout", IMGPKG, OCI_LAYOUT])
def test_what_images_of_bundles_have_travels_in_folders_and_archives(tmp_path: Path, through: str) -> None:
    signed = signed_index(13)
    with StrictRegistry() as origin, StrictRegistry(Features(referrers=False)) as destination:
        listed = push_signed(origin.url, "shop/web", signed, api=True)
        push(origin.url, "shop/bundle", bundle([listed]), "1.0")
        source, to = f"{origin.host}/shop/bundle:1.0", f"{destination.host}/mirror/shop"
        if through == "layout":
            copied(f"oci:{tmp_path}/layout", bundle=source, artifacts=ALL)
            copied(to, bundle=f"oci:{tmp_path}/layout:1.0", artifacts=ALL)
        else:
            archived(tmp_path / "a.tar", bundle=source, artifacts=ALL, options=ExportOptions(format=through))
            imported(to, tmp_path / "a.tar")

        assert lost_at(destination.url, "mirror/shop", signed, api=False) == []


def test_verifying_an_image_looks_at_what_is_attached_to_it() -> None:
    signed = signed_index(14)
    with source_of(signed, api=True) as (origin, reference), session() as one:
        bundled = signed.referrers[signed.root.digest][0]
        whole = verify_names(one, parse_any(reference).repository, ["1.0"], deep=True)
        origin.store.repository("shop/web").blobs.discard(bundled.blobs[0].descriptor()["digest"])
        lacking = verify_names(one, parse_any(reference).repository, ["1.0"])

        assert whole.problems == ()
        assert whole.manifests == len(signed.root.everything()) + len(signed.attached)
        assert len(lacking.problems) == 1
