"""`transship copy`, run as a script and as a person would."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.storm.crashes import small_files
from tests.support.command import PROGRAM, transship, transship_on_terminal
from tests.support.content import FOREIGN_LAYER, Blob, image, index, layer, push
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/shop", seed=7)


def test_in_a_pipe_a_success_is_one_line_on_standard_error(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "-b", shop.reference, "--to-repo", target)

    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(
        rf"{shop.reference} -> {target}: 7 \(2 bundles, 3 images, 2 indexes\) copied, 0 there already, "
        r"[\d.]+ KiB sent, 0 B mounted, \d+ requests, [\d.]+ s\n",
        done.err,
    )
    again = transship("copy", "-b", shop.reference, "--to-repo", target, "--quiet")
    assert again == type(again)(0, "", "")


def test_on_a_terminal_the_lines_are_imgpkgs(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    done = transship_on_terminal("copy", "-b", shop.reference, "--to-repo", f"{other_registry.host}/{repository}")

    lines = done.out.splitlines()
    assert done.code == 0
    assert "copy | exporting 7 images..." in lines
    assert sum(line.startswith("copy | will export ") for line in lines) == 7
    assert "copy | importing 7 images..." in lines
    assert lines[-1].rstrip().endswith("Succeeded")


def test_json_is_one_document(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    done = transship("copy", "--json", "-b", shop.reference, "--to-repo", f"{other_registry.host}/{repository}")

    document = json.loads(done.out)
    assert not done.out.endswith("\n")
    assert list(document) == ["Tables", "Blocks", "Lines", "Result"]
    assert document["Lines"][-1] == "Succeeded"


def test_a_failure_in_json_is_an_error_object_and_still_text_on_standard_error(registry: DockerRegistry) -> None:
    done = transship("copy", "-b", f"{registry.host}/no/where:v1", "--to-repo", f"{registry.host}/x/y", "--json")

    assert done.code == 1
    error = json.loads(done.out)["Error"]
    assert (error["Kind"], error["Side"], error["Code"]) == ("NotFound", "source", "MANIFEST_UNKNOWN")
    assert done.err.startswith("transship: Error: Fetching image:\n")
    assert done.err.splitlines()[-1].startswith("Hint: check the name")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Expected either --lock, --bundle (-b), --image (-i), or --tar as a source"),
        (("-b", "a.example/bb", "-i", "a.example/bb"), "Expected either --lock, --bundle (-b), --image (-i), or --tar"),
        (("-b", "a.example/bb"), "Expected either --to-tar or --to-repo"),
        (("-b", "a.example/bb", "--to-repo", "b.example/cc:tag"), "Building import repository ref:"),
        (("-b", "https://a.example/bb", "--to-repo", "b.example/cc"), "starts with a scheme"),
        (("-b", "a.example/bb", "--to-repo", "b.example/cc", "--platform", "linux/amd64"), "can't be left out"),
        (("-b", "a.example/bb", "--to-repo", "oci:/x", "--lock-output", "l"), "A lock names registries only"),
        (("--lock", "/no/such/file", "--to-repo", "b.example/cc"), "/no/such/file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(arguments: tuple[str, ...], said: str) -> None:
    done = transship("copy", *arguments)

    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bogus",),
        ("--artifacts", "sboms"),
        ("--concurrency", "0"),
        ("--tty=maybe",),
        ("--registry-response-header-timeout", "30"),
    ],
)
def test_wrong_usage_ends_with_2_and_under_the_name_imgpkg_with_1(arguments: tuple[str, ...], tmp_path: Path) -> None:
    link = tmp_path / "imgpkg"
    os.symlink(PROGRAM, link)

    assert transship("copy", *arguments).code == 2
    done = transship("copy", *arguments, program=link)
    assert done.code == 1
    assert done.err.startswith("imgpkg: Error: ")


def test_flags_of_the_program_go_anywhere_and_booleans_take_values(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    target = f"{other_registry.host}/{repository}"
    before = transship("--tty", "copy", "-b", shop.reference, "--to-repo", target)
    after = transship("copy", "-b", shop.reference, "--to-repo", target, "--tty=true", "--registry-verify-certs=false")
    off = transship("--tty", "copy", "-b", shop.reference, "--to-repo", target, "--tty=false")

    assert before.out.endswith("Succeeded\n")
    assert after.out.endswith("Succeeded\n")
    assert off.out == ""


def test_the_lock_of_a_bundle_and_the_report(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    target, lock, report = f"{other_registry.host}/{repository}", tmp_path / "lock.yml", tmp_path / "report.json"
    done = transship(
        "copy", "-b", shop.reference, "--to-repo", target, "--lock-output", str(lock), "--report", str(report)
    )

    assert done.code == 0, done.err
    assert lock.read_text() == (
        "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nbundle:\n"
        f"  image: {target}@{shop.bundle.digest}\n  tag: 1.4.0\nkind: BundleLock\n"
    )
    assert lock.stat().st_mode & 0o777 == 0o600
    body = json.loads(report.read_text())
    assert {one["status"] for one in body["images"]} == {"done"}
    assert body["tags"] == ["1.4.0"]
    assert body["receipt"]["blobs"]["written"] == len(body["images"]) * 2 + 8


def test_the_lock_of_a_lock_keeps_order_and_annotations(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    references = [push(registry.url, f"{repository}/{number}", image(200 + number)) for number in (2, 1)]
    given, lock = tmp_path / "images.yml", tmp_path / "lock.yml"
    given.write_text(
        "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n"
        f"- image: {references[0]}\n  annotations: {{a: b}}\n- image: {references[1]}\n"
    )
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "--lock", str(given), "--to-repo", target, "--lock-output", str(lock))

    assert done.code == 0, done.err
    digests = [reference.partition("@")[2] for reference in references]
    assert lock.read_text() == (
        "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nimages:\n"
        f"- annotations:\n    a: b\n  image: {target}@{digests[0]}\n- image: {target}@{digests[1]}\nkind: ImagesLock\n"
    )


def test_partly_failed_is_an_exit_code_of_its_own_and_the_rest_is_done(
    shop: Shop, registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    bad = shop.chart.blobs[0].descriptor()["digest"]
    with FaultProxy(other_registry.port, Fault(method="P.*", path=re.escape(bad[7:]), status=400)) as proxy:
        done = transship(
            "copy", "-b", shop.reference, "--to-repo", f"{proxy.host}/{repository}", "--report", str(report)
        )

    assert done.code == 3
    assert "1 of 7 images failed; no name was moved" in done.err
    assert "what is there already is not sent again" in done.err
    states = {one["role"]: one["status"] for one in json.loads(report.read_text())["images"]}
    assert states["nested bundle"] == "done"
    failed = [one for one in json.loads(report.read_text())["images"] if one["status"] == "failed"]
    assert [one["digest"] for one in failed] == [shop.chart.digest]
    assert "1.4.0" not in other_registry.repository_tags(repository)
    assert transship("copy", "-b", shop.reference, "--to-repo", f"{other_registry.host}/{repository}").code == 0


def test_platforms_rewrite_the_index(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    children = [image(300), image(301), image(302)]
    content = index(children, ["linux/amd64", "linux/arm64", "windows/amd64"])
    push(registry.url, repository, content, "v1")
    target, lock = f"{other_registry.host}/{repository}", tmp_path / "lock.yml"
    done = transship(
        "copy", "-i", f"{registry.host}/{repository}:v1", "--to-repo", target, "--platform", "linux/amd64,linux/arm64",
        "--lock-output", str(lock),
    )  # fmt: skip

    assert done.code == 0, done.err
    rewritten = json.loads(raw_manifest(f"{target}:v1"))
    assert [one["digest"] for one in rewritten["manifests"]] == [child.digest for child in children[:2]]
    assert content.digest not in lock.read_text()
    missing = transship(
        "copy", "-i", f"{registry.host}/{repository}:v1", "--to-repo", target, "--platform", "linux/s390x"
    )
    assert missing.code == 2
    assert "has no image for linux/s390x; it has linux/amd64, linux/arm64, windows/amd64" in missing.err


def test_a_plan_says_what_would_be_done_and_does_nothing(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    done = transship("copy", "-b", shop.reference, "--to-repo", f"{other_registry.host}/{repository}", "--plan")

    assert done.code == 0
    rows = done.out.splitlines()
    assert [row.split("\t")[0] for row in rows[:7]].count("listed image") == 5
    assert [row.split("\t")[0] for row in rows[7:]] == sorted([shop.reference.partition("/")[0], other_registry.host])
    assert "7 of 7 images to copy" in done.err
    assert other_registry.repository_tags(repository) == []


def test_a_plan_that_could_not_read_something_ends_as_the_copy_will(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    push(registry.url, repository, image(310), "1")
    lock = tmp_path / "lock.yml"
    lock.write_text(
        "apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n"
        + "".join(f"- image: {registry.host}/{repository}@{one.digest}\n" for one in (image(310), image(311)))
    )
    arguments = ("copy", "--lock", str(lock), "--to-repo", f"{other_registry.host}/{repository}")
    planned = transship(*arguments, "--plan")
    copied = transship(*arguments)

    assert (planned.code, copied.code) == (3, 3)
    assert image(311).digest in planned.err
    assert "1 of 2 images failed; no name was moved" in planned.err


@pytest.mark.parametrize(("others", "code"), [(0, 1), (1, 3)])
def test_a_plan_of_an_index_without_a_child_ends_as_the_copy_will(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path, others: int, code: int
) -> None:
    """An index is one image to copy: with a child that can't be read nothing of it is in place."""
    broken = index([image(310), image(312)])
    references = [push(registry.url, repository, each) for each in (broken, image(313))[: others + 1]]
    gone = httpx.delete(f"{registry.url}/v2/{repository}/manifests/{image(312).digest}")
    assert gone.status_code == 202
    lock = tmp_path / "lock.yml"
    images = "".join(f"- image: {reference}\n" for reference in references)
    lock.write_text(f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{images}")
    arguments = ("copy", "--lock", str(lock), "--to-repo", f"{other_registry.host}/{repository}")

    planned, copied = transship(*arguments, "--plan"), transship(*arguments)

    count = f"2 of {others + 2} images failed"
    assert (planned.code, copied.code) == (code, code)
    assert count in planned.err
    assert count in copied.err


@pytest.mark.parametrize("flag", ["--report", "--lock-output"])
def test_outputs_are_checked_before_the_work(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path, flag: str
) -> None:
    missing = tmp_path / "missing" / "file"
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "-b", shop.reference, "--to-repo", target, flag, str(missing))

    assert done.code == 2
    assert str(missing) in done.err
    assert other_registry.repository_tags(repository) == []


@pytest.mark.parametrize("flag", ["--report", "--receipt"])
def test_a_full_disk_after_the_copy_does_not_hide_what_was_copied(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path, flag: str
) -> None:
    target = f"{other_registry.host}/{repository}"
    done = subprocess.run(
        [str(PROGRAM), "copy", "-b", shop.reference, "--to-repo", target, flag, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
        preexec_fn=lambda: small_files(100),
    )

    assert done.returncode == 1
    assert f"{shop.reference} -> {target}: 7 (2 bundles, 3 images, 2 indexes) copied" in done.stderr
    assert f"Error: {tmp_path / 'file'}: writing the" in done.stderr
    assert other_registry.repository_tags(repository)


def test_ignore_bundle_check_belongs_to_images(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "-b", shop.reference, "--ignore-bundle-check", "--to-repo", target)

    assert done.code == 2
    assert "use -i instead of -b" in done.err
    assert other_registry.repository_tags(repository) == []


def test_a_repair_says_what_it_repaired_and_a_bundle_in_place_says_how_to_look(shop: Shop, tmp_path: Path) -> None:
    arguments = ("copy", "-b", shop.reference, "--to-repo", f"oci:{tmp_path}")
    assert transship(*arguments).code == 0
    again = transship_on_terminal(*arguments)
    complete = transship(*arguments, "--repair")
    lost = shop.chart.blobs[0].descriptor()["digest"].removeprefix("sha256:")
    (tmp_path / "blobs" / "sha256" / lost).unlink()
    verified = transship(*arguments, "--verify", "head", "--json")
    repaired = transship(*arguments, "--repair", "--verify", "head", "--report", str(tmp_path / "report.json"))

    assert "what it lists wasn't looked at: use --verify head or --repair" in again.out + again.err
    assert "0 images repaired, 7 complete already" in complete.err
    assert verified.code == 1
    assert lost in verified.err
    assert "1 image repaired, 6 complete already" in repaired.err
    assert "verified" in repaired.err
    assert json.loads((tmp_path / "report.json").read_text())["verification"]["problems"] == []


def test_tags_at_the_destination_can_be_chosen(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "-b", shop.reference, "--to-repo", target, "--to-tag", "stable,2.0")

    assert done.code == 0
    tags = other_registry.repository_tags(repository)
    assert {"stable", "2.0"} <= set(tags)
    assert "1.4.0" not in tags


def test_debug_shows_requests_and_nothing_secret(shop: Shop, other_registry: DockerRegistry, repository: str) -> None:
    done = transship(
        "copy", "-b", shop.reference, "--to-repo", f"{other_registry.host}/{repository}", "--debug",
        environ={"IMGPKG_USERNAME": "bob", "IMGPKG_PASSWORD": "hidden-word"},
    )  # fmt: skip

    assert done.code == 0
    assert f"HEAD http://{shop.reference.partition('/')[0]}/v2/cli/shop/bundle/manifests/1.4.0 -> 200" in done.err
    assert "hidden-word" not in done.err
    assert "_state=" not in done.err


def test_plain_progress_in_a_pipe_when_asked_for(
    shop: Shop, registry: DockerRegistry, other_registry: DockerRegistry, repository: str
) -> None:
    with FaultProxy(other_registry.port, Fault(method="HEAD", last=1, delay=6.0)) as proxy:
        done = transship("copy", "-b", shop.reference, "--to-repo", f"{proxy.host}/{repository}", "--progress", "plain")

    assert done.code == 0
    assert done.err.startswith("planning\n")


def test_the_command_starts_fast() -> None:
    """A bound far above what it takes, for noisy machines: importing anything heavy would break it all the same."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = transship("version")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.out == "transship version 0.1.0\n"
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5


def test_a_bundle_is_no_image_whether_it_is_there_already_or_not(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    target = f"{other_registry.host}/{repository}"
    fresh = transship("copy", "-i", shop.reference, "--to-repo", target)
    assert (fresh.code, "Use -b instead of -i" in fresh.err) == (2, True)
    assert transship("copy", "-b", shop.reference, "--to-repo", target).code == 0

    there = transship("copy", "-i", shop.reference, "--to-repo", target)

    assert (there.code, "Use -b instead of -i" in there.err) == (2, True)


def test_a_bundle_is_copied_as_a_plain_image_when_told_so(
    shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    done = transship(
        "copy", "-i", shop.reference, "--ignore-bundle-check", "--to-repo", f"{other_registry.host}/{repository}"
    )

    assert done.code == 0, done.err
    assert "1 image copied" in done.err
    assert len(other_registry.repository_tags(repository)) == 2


def test_layers_that_are_left_out_are_told_with_their_image(tmp_path: Path, repository: str) -> None:
    foreign = Blob(FOREIGN_LAYER, b"not ours to spread", urls=("https://vendor.example/layer",), absent=True)
    with DockerRegistry(tmp_path / "windows", foreign_urls=True) as source:
        reference = push(source.url, repository, image(43, layers=(layer(44), foreign), docker=True))
        done = transship("copy", "-i", reference, "--to-tar", str(tmp_path / "x.tar"), "--quiet")

    assert done.code == 0, done.err
    assert done.err.splitlines() == [
        (
            "Warning: Skipped the followings layer(s) due to it being non-distributable. If you would like to include "
            "non-distributable layers, use the --include-non-distributable-layers flag"
        ),
        f" - Image: {reference}",
        "   Layers:",
        f"     - {foreign.descriptor()['digest']}",
    ]


def test_parts_of_an_error_stand_below_each_other(registry: DockerRegistry) -> None:
    done = transship("pull", "-i", f"{registry.host}/no/where:v1", "-o", "/nonexistent/folder")

    assert done.err == (
        "transship: Error: Fetching image:\n"
        f"  GET {registry.url}/v2/no/where/manifests/v1:\n"
        "    MANIFEST_UNKNOWN: manifest unknown (404)\n"
        f"Asked: source {registry.host}, for {registry.host}/no/where:v1\n"
        "Hint: check the name, and that this identity may read it; "
        f"`transship tag list -i {registry.host}/no/where` says what there is\n"
    )
