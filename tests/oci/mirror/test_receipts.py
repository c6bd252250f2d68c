"""What a mirror leaves in writing: receipts of what its tags show, attached or as files, and signatures of archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from oci.mirror.comparison import TagState
from oci.mirror.config import Mirror
from oci.mirror.reader import make
from oci.mirror.run import run_mirrors
from oci.mirror.run_state import Shared
from oci.receipts.check import LOST_TAG, REPLACED_TAG, Checked, check_receipt, find_receipt
from oci.signatures.keys import read_key_file
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.attaching import push_signed, signed_index
from tests.support.content import image, push
from tests.support.mirroring import CHECK, compared, mirror_of, run, session_of, states
from tests.support.sealing import SUFFIX, signed_statement

CONTENT, NEWER, OTHER = image(601), image(602), image(603)


def receipts(tmp_path: Path, keys: Path, **more: Any) -> dict[str, Any]:
    return {"folder": str(tmp_path / "receipts"), "sign": str(keys / "own.key"), **more}


def statement(tmp_path: Path, keys: Path, name: str = "web") -> dict[str, Any]:
    file = tmp_path / "receipts" / f"{name}.receipt.json"
    said: dict[str, Any] = signed_statement(file.read_bytes(), keys / "own.pub", tmp_path)["predicate"]
    return said


def checked(name: str, keys: Path) -> Checked:
    with session_of() as session:
        return check_receipt(session, find_receipt(session, name, [read_key_file(str(keys / "own.pub"))]))


@pytest.mark.parametrize("immutable", [[], [".*"]], ids=["tags that move", "immutable tags"])
def test_each_run_says_what_every_tag_shows_and_drift_is_found_by_it(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path, immutable: list[str]
) -> None:
    web, here = f"{origin.host}/shop/web", f"{destination.host}/mirror/web"
    mirror = mirror_of(web, here, receipts=receipts(tmp_path, keys), immutable=immutable)
    run(mirror)
    first = statement(tmp_path, keys)
    push(origin.url, "shop/web", NEWER, "2.0")
    run(mirror)

    said = statement(tmp_path, keys)
    assert (first["tags"], said["tags"]) == (
        {"1.0": CONTENT.digest},
        {"1.0": CONTENT.digest, "2.0": NEWER.digest},
    )
    assert {one["digest"]: one["status"] for one in said["images"]} == {
        CONTENT.digest: "present",
        NEWER.digest: "done",
    }
    assert said["source"] == {"kind": "mirror", "name": web, "digest": "", "locations": []}
    assert (said["counts"]["copied"], said["counts"]["present"]) == (1, 1)
    receipt = str(tmp_path / "receipts" / "web.receipt.json")
    assert checked(receipt, keys).differences == ()
    push(destination.url, "mirror/web", OTHER, "1.0")
    httpx.delete(f"{destination.url}/v2/mirror/web/manifests/2.0").raise_for_status()
    assert [one.kind for one in checked(receipt, keys).differences] == [REPLACED_TAG, LOST_TAG]


def test_what_failed_or_was_refused_is_in_no_receipt(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"version": 1, "default": "reject"}))
    where = f"{origin.host}/shop/web", f"{destination.host}/mirror/web"

    report = run(mirror_of(*where, policy=str(policy), receipts=receipts(tmp_path, keys)))

    said = statement(tmp_path, keys)
    assert report.unsigned == ("1.0",)
    assert (said["images"], said["tags"]) == ([], {})
    assert [one["accepted"] for one in said["policy"]["decisions"]] == [False]


@pytest.mark.parametrize("api", [True, False], ids=["API", "tags"])
def test_a_receipt_is_attached_to_what_was_copied_and_is_no_drift(keys: Path, tmp_path: Path, api: bool) -> None:
    with StrictRegistry() as source, StrictRegistry(Features(referrers=api)) as destination:
        push(source.url, "shop/web", CONTENT, "1.0", "latest")
        here = f"{destination.host}/mirror/web"
        mirror = mirror_of(f"{source.host}/shop/web", here, receipts=receipts(tmp_path, keys, folder="", attach=True))
        assert run(mirror).succeeded
        assert checked(f"{here}:1.0", keys).tags == 2

        check = compared(mirror, scope=CHECK)
        before = len(destination.requests())
        again = run(mirror)

        assert set(states(check).values()) == {TagState.IN_PLACE.value}
        assert again.copied == 0
        assert not [seen for seen in destination.requests()[before:] if seen.method in ("POST", "PUT")]
        assert not (tmp_path / "receipts").exists()


def test_tags_of_signatures_are_no_names_of_the_image(destination: StrictRegistry, keys: Path, tmp_path: Path) -> None:
    signed = signed_index(61)
    with StrictRegistry() as source:
        push_signed(source.url, "shop/web", signed, "1.0", api=True)
        here = f"{destination.host}/mirror/web"
        mirror = mirror_of(f"{source.host}/shop/web", here, receipts=receipts(tmp_path, keys, attach=True))
        for _ in range(2):
            assert run(mirror).succeeded

            assert statement(tmp_path, keys)["tags"] == {"1.0": signed.root.digest}
            assert checked(str(tmp_path / "receipts" / "web.receipt.json"), keys).differences == ()
        assert checked(f"{here}:1.0", keys).differences == ()


def test_an_archive_of_a_mirror_is_signed_and_its_receipt_has_its_digest(
    origin: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "web.tar"
    mirror = mirror_of(
        f"{origin.host}/shop/web", receipts=receipts(tmp_path, keys), destinations=[{"archive": str(archive)}]
    )
    assert run(mirror).succeeded

    [(name, _)] = statement(tmp_path, keys)["files"].items()
    assert name == "web.tar"
    assert Path(f"{archive}{SUFFIX}").exists()
    receipt = str(tmp_path / "receipts" / "web.receipt.json")
    assert checked(receipt, keys).differences == ()
    data = bytearray(archive.read_bytes())
    data[-2000] ^= 1
    archive.write_bytes(data)
    assert checked(receipt, keys).differences


def test_what_a_lock_pins_is_in_the_receipt_without_tags(
    origin: StrictRegistry, destination: StrictRegistry, keys: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "images.yml"
    named = f"{origin.host}/shop/web@{CONTENT.digest}"
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages: [{{image: {named}}}]\n")
    mirror = mirror_of(str(lock), f"{destination.host}/mirror/web", receipts=receipts(tmp_path, keys))
    for _ in range(2):
        assert run(mirror).succeeded

        said = statement(tmp_path, keys)
        assert ([one["digest"] for one in said["images"]], said["tags"]) == ([CONTENT.digest], {})
    assert checked(str(tmp_path / "receipts" / "web.receipt.json"), keys).differences == ()


def test_mirrors_of_a_namespace_and_several_destinations_have_receipts_of_their_own(
    registry: DockerRegistry, destination: StrictRegistry, repository: str, keys: Path, tmp_path: Path
) -> None:
    for name in ("web", "tools/cli"):
        push(registry.url, f"{repository}/{name}", OTHER, "1.0")
    names = [f"{destination.host}/{place}/{{path}}" for place in ("one", "two")]
    source = {"namespace": f"{registry.host}/{repository}"}
    body = {"name": "all", "source": source, "receipts": receipts(tmp_path, keys)}
    mirror = make(Mirror, {**body, "destinations": [{"repository": name} for name in names]})

    with session_of() as session:
        reports = run_mirrors(session, [mirror], Shared())

    assert [report.failed for report in reports] == [(), ()]
    written = {str(path.relative_to(tmp_path / "receipts")) for path in (tmp_path / "receipts").rglob("*.json")}
    assert written == {f"all/{name}{end}.receipt.json" for name in ("web", "tools/cli") for end in ("", "@2")}
    place = statement(tmp_path, keys, "all/tools/cli@2")["destination"]["name"]
    assert place == f"{destination.host}/two/{repository}/tools/cli"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sign": "nosuch.key"}, "nosuch.key"),
        ({"sign": "", "signing_key": "corp"}, "block corp"),
        ({"folder": "/dev/null/receipts"}, "/dev/null/receipts"),
    ],
)
def test_a_receipt_that_cannot_be_written_is_a_failure_that_is_reported(
    origin: StrictRegistry,
    destination: StrictRegistry,
    keys: Path,
    tmp_path: Path,
    options: dict[str, str],
    said: str,
) -> None:
    left = receipts(tmp_path, keys, **options)

    report = run(mirror_of(f"{origin.host}/shop/web", f"{destination.host}/mirror/web", receipts=left))

    assert not report.succeeded
    assert said in report.failed[0].error
    copied = [seen for seen in destination.requests() if seen.path.endswith("/manifests/1.0") and seen.method == "PUT"]
    assert bool(copied) == ("folder" in options), "a key is read before a byte moves"
