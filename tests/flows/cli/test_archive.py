"""Archives on the command line: made, imported, looked at."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.servers.skopeo import raw_manifest
from tests.support.command import transship, transship_on_terminal
from tests.support.content import FOREIGN_LAYER, Blob, digest_of, image, layer, push
from tests.support.shop import Shop, push_shop


@pytest.fixture(scope="module")
def shop(registry: DockerRegistry) -> Shop:
    return push_shop(registry.url, "cli/archives", seed=51)


@pytest.fixture(scope="module")
def archive(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("archive") / "shop.tar"
    done = transship("copy", "-b", shop.reference, "--to-tar", str(path))
    assert done.code == 0, done.err
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--tar", "x.tar", "-b", "a.example/bb", "--to-repo", "b.example/cc"),
            "Expected either --lock, --bundle (-b)",
        ),
        (
            ("-b", "a.example/bb", "--to-tar", "x.tar", "--to-repo", "b.example/cc"),
            "Expected either --to-tar or --to-repo",
        ),
        (("--tar", "x.tar", "--to-tar", "y.tar"), "Cannot use tar source (--tar) with tar destination (--to-tar)"),
        (
            ("-b", "a.example/bb", "--to-tar", "x.tar", "--lock-output", "l"),
            "cannot output lock file with tar destination",
        ),
        (
            ("-b", "a.example/bb", "--to-repo", "b.example/cc", "--resume"),
            "Flag --resume can only be used when copying",
        ),
        (("-b", "a.example/bb", "--to-repo", "b.example/cc", "--only", "x"), "only an archive can be asked for"),
        (("-b", "a.example/bb", "--to-tar", "s3://bucket"), "names no object"),
        (("-b", "a.example/bb", "--to-tar", "-"), "can't be a stream"),
        (("-b", "a.example/bb", "--to-tar", "x.tar", "--monitor", "--plan"), "can't be combined with --plan"),
        (("-b", "a.example/bb", "--to-tar", "S3://bucket/key"), "s3://BUCKET/KEY in lower case"),
        (("--tar", "https://a.example/x.tar", "--to-repo", "b.example/cc"), "an archive is a file or an object"),
        (("--tar", "/no/such.tar", "--to-repo", "b.example/cc"), "/no/such.tar"),
    ],
)
def test_what_makes_no_sense_is_refused_in_imgpkgs_words(arguments: tuple[str, ...], said: str) -> None:
    done = transship("copy", *arguments)

    assert done.code == 2
    assert said in done.err


def test_an_export_says_in_one_line_what_it_did(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    done = transship(
        "copy", "-b", shop.reference, "--to-tar", str(path), "--sha256sums", "--report", str(tmp_path / "r")
    )

    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(
        rf"{shop.reference} -> {path}: 7 images, 18 blobs, [\d.]+ KiB written, \d+ requests, [\d.]+ s\n", done.err
    )
    report = json.loads((tmp_path / "r").read_text())
    assert report["locations"] == [str(path)]
    assert (tmp_path / "x.tar.SHA256SUMS").read_text() == f"{report['sha256'][0]}  x.tar\n"


def test_on_a_terminal_the_lines_are_imgpkgs(
    shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    done = transship_on_terminal("copy", "-b", shop.reference, "--to-tar", str(path))
    lines = done.out.splitlines()

    assert "copy | exporting 7 images..." in lines
    assert "copy | exported 7 images" in lines
    assert "copy | writing layers..." in lines
    with tarfile.open(path) as tar:
        for name in tar.getnames():
            assert any(re.fullmatch(rf"copy \| done: file '{name}' \([\d.]+s\)", line) for line in lines)
    again = transship_on_terminal("copy", "-b", shop.reference, "--to-tar", str(path), "--resume").out
    assert re.search(r"copy \| Going to reuse \d+ layers from the tar already in disk", again)
    back = transship_on_terminal("copy", "--tar", str(path), "--to-repo", f"{other_registry.host}/{repository}").out
    assert "copy | importing 7 images..." in back
    assert "copy | Tagging images" in back
    assert "exporting" not in back


def test_an_import_writes_the_lock(
    archive: str, shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    target, lock = f"{other_registry.host}/{repository}", tmp_path / "lock.yml"
    done = transship("copy", "--tar", archive, "--to-repo", target, "--lock-output", str(lock), "--verify", "deep")

    assert done.code == 0, done.err
    assert lock.read_text() == (
        "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nbundle:\n"
        f"  image: {target}@{shop.bundle.digest}\n  tag: 1.4.0\nkind: BundleLock\n"
    )
    again = transship("copy", "--tar", archive, "--to-repo", target)
    assert "nothing copied, 1 bundle there already (what it lists wasn't asked for), 0 B sent" in again.err


def test_one_image_and_a_tag_of_its_own(
    archive: str, shop: Shop, other_registry: DockerRegistry, repository: str
) -> None:
    target = f"{other_registry.host}/{repository}"
    done = transship("copy", "--tar", archive, "--only", shop.web.digest, "--to-tag", "web", "--to-repo", target)

    assert done.code == 0, done.err
    assert raw_manifest(f"{target}:web") == shop.web.raw
    none = transship("copy", "--tar", archive, "--only", "none:v1", "--to-repo", target)
    assert none.code == 1
    assert "archive list" in none.err


def test_volumes_by_repeated_flags(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    made = image(52, layers=[layer(number, 700_000) for number in (1, 2, 3)])
    push(registry.url, repository, made, "v1")
    reference = f"{registry.host}/{repository}:v1"
    done = transship("copy", "-i", reference, "--to-tar", str(tmp_path / "x.tar"), "--max-size", "1MB", "--sha256sums")
    volumes = sorted(str(path) for path in tmp_path.glob("x.vol*.tar"))
    target = f"{other_registry.host}/{repository}"

    assert (done.code, len(volumes)) == (0, 3), done.err
    assert "and 2 more volumes" in done.err
    assert [line.split()[1] for line in (tmp_path / "x.tar.SHA256SUMS").read_text().splitlines()] == [
        "x.vol001.tar",
        "x.vol002.tar",
        "x.vol003.tar",
    ]
    missing = transship("copy", "--tar", volumes[2], "--tar", volumes[0], "--to-repo", target)
    assert "of 3 volumes these are missing: 2" in missing.err
    whole = transship("copy", *(f"--tar={volume}" for volume in reversed(volumes)), "--to-repo", target)
    assert whole.code == 0, whole.err
    assert raw_manifest(f"{target}:v1") == made.raw


def test_scenario_11_layers_that_were_left_out_are_named(
    registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    foreign = Blob(FOREIGN_LAYER, layer(53).data, urls=("https://foreign.invalid/layer",), absent=True)
    made = image(53, layers=[foreign, layer(54)])
    push(registry.url, repository, made, "v1")
    done = transship("copy", "-i", f"{registry.host}/{repository}:v1", "--to-tar", str(tmp_path / "x.tar"))

    assert done.code == 0
    assert "Skipped the followings layer(s) due to it being non-distributable." in done.err
    named = f" - Image: {registry.host}/{repository}@{made.digest}\n   Layers:\n     - {digest_of(foreign.data)}\n"
    assert named in done.err


def test_a_delta_is_told_and_its_import_names_what_is_missing(
    archive: str, shop: Shop, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "delta.tar")
    done = transship("copy", "-b", shop.reference, "--to-tar", path, "--delta-from", archive)
    assert re.search(r"[\d.]+ KiB left out", done.err)
    assert "a delta to shop.tar" in transship("archive", "list", path).err
    refused = transship("copy", "--tar", path, "--to-repo", f"{other_registry.host}/{repository}")

    assert refused.code == 1
    assert digest_of(shop.web.blobs[0].data) in refused.err
    assert "Hint: it needs what shop.tar" in refused.err


def test_pull_and_describe_out_of_an_archive(archive: str, shop: Shop, tmp_path: Path) -> None:
    pulled = transship("pull", "--tar", archive, "-o", str(tmp_path / "out"), "-r")
    nested = transship("pull", "--tar", archive, "-b", shop.nested.digest, "-o", str(tmp_path / "nested"))
    plain = transship("pull", "--tar", archive, "-i", shop.web.digest, "-o", str(tmp_path / "web"))

    assert (pulled.code, nested.code, plain.code) == (0, 0, 0), pulled.err + nested.err + plain.err
    assert (tmp_path / "out" / "config.yml").read_text() == "kind: Shop\n"
    assert (tmp_path / "out" / ".imgpkg" / "bundles" / f"sha256-{shop.nested.hex}" / "config.yml").exists()
    assert (tmp_path / "web").is_dir()
    described = transship("describe", "--tar", archive).out
    assert described.startswith(f"Bundle SHA: {shop.bundle.digest}")
    assert f"archive:{archive}@{shop.web.digest}" in described
    assert transship("describe", "--tar", archive, "-b", shop.nested.digest).out.startswith(
        f"Bundle SHA: {shop.nested.digest}"
    )


def test_list_and_verify_and_diff(
    archive: str, shop: Shop, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    listed = json.loads(transship("archive", "list", archive, "--json").out)["Tables"][0]
    root = next(row for row in listed["Rows"] if row["digest"] == shop.bundle.digest)
    assert (root["tag"], root["kind"]) == ("1.4.0", "bundle")
    assert len(listed["Rows"]) == 7
    blobs = transship("archive", "list", "--blobs", archive).out.splitlines()
    assert f"{digest_of(shop.web.blobs[0].data)}\t{len(shop.web.blobs[0].data)}\t" in blobs
    assert "7 images, 18 blobs: all there" in transship("archive", "verify", archive).err
    assert "hashed: all there" in transship("archive", "verify", archive, "--deep").err
    other = str(tmp_path / "other.tar")
    web = image(55, docker=True)
    push(registry.url, "cli/archives/web", web)
    transship("copy", "-i", f"{registry.host}/cli/archives/web@{web.digest}", "--to-tar", other)
    rows = transship("archive", "diff", archive, other).out.splitlines()
    home = shop.reference.rpartition("/")[0]
    assert f"changed\t{home}/web\t{shop.web.digest}\t{web.digest}\t" in rows
    assert f"removed\t{home}/tools\t{shop.tools.digest}\t-\t" in rows


@pytest.fixture
def damaged(archive: str, shop: Shop, tmp_path: Path) -> str:
    """The archive with one bit of a layer turned round."""
    data = bytearray(Path(archive).read_bytes())
    with tarfile.open(archive) as tar:
        name = f"{digest_of(shop.web.blobs[0].data).replace(':', '-')}.tar.gz"
        data[tar.getmember(name).offset_data + 100] ^= 1
    path = tmp_path / "damaged.tar"
    path.write_bytes(data)
    return str(path)


def test_a_damaged_archive_is_told_by_a_deep_look_only(damaged: str, shop: Shop) -> None:
    assert transship("archive", "verify", damaged).code == 0
    done = transship("archive", "verify", damaged, "--deep")
    assert done.code == 1
    assert digest_of(shop.web.blobs[0].data) in done.err


def test_a_copy_out_of_a_damaged_archive_does_not_lead_to_the_same_again(damaged: str, tmp_path: Path) -> None:
    done = transship("copy", "--tar", damaged, "--to-repo", f"oci:{tmp_path / 'layout'}")

    assert done.code == 3
    assert "(hint: bring the damaged files again)" in done.err
    assert "the same again" not in done.err


@pytest.mark.parametrize("command", [("archive", "plan"), ("copy", "--plan")])
def test_a_plan_says_where_every_byte_would_be_and_writes_none(
    shop: Shop, archive: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "x.tar"
    done = transship(*command, "-b", shop.reference, "--to-tar", str(path), "--json")
    tables = {table["Content"]: table["Rows"] for table in json.loads(done.out)["Tables"]}

    with tarfile.open(archive) as tar:
        want = [(one.name, one.offset, one.size) for one in tar.getmembers()]
    assert [(row["member"], row["offset"], row["bytes"]) for row in tables["members"]] == want
    assert tables["parts"][0]["bytes"] == Path(archive).stat().st_size
    assert not list(tmp_path.iterdir())


def test_a_plan_of_an_archive_that_can_not_be_written_ends_as_the_copy_will(shop: Shop, tmp_path: Path) -> None:
    arguments = ("copy", "-b", shop.reference, "--to-tar", str(tmp_path / "missing" / "x.tar"))

    assert transship(*arguments, "--plan").code == transship(*arguments).code == 2


def test_a_push_into_an_archive_needs_no_registry(
    other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    files, path = tmp_path / "files", str(tmp_path / "x.tar")
    (files / ".imgpkg").mkdir(parents=True)
    (files / ".imgpkg" / "images.yml").write_text("apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n")
    pushed = transship("push", "-b", "nowhere.example/shop/app:1.0", "-f", str(files), "--to-tar", path)
    copied = transship("copy", "--tar", path, "--to-repo", f"{other_registry.host}/{repository}")
    direct = transship("push", "-b", f"{other_registry.host}/{repository}/direct:1.0", "-f", str(files))
    pulled = transship("pull", "--tar", path, "-o", str(tmp_path / "out"))

    assert (pushed.code, copied.code, direct.code, pulled.code) == (0, 0, 0, 0), pushed.err + copied.err + pulled.err
    assert "Pushed 'nowhere.example/shop/app@sha256:" in pushed.err
    assert raw_manifest(f"{other_registry.host}/{repository}:1.0") == raw_manifest(
        f"{other_registry.host}/{repository}/direct:1.0"
    )
    assert (tmp_path / "out" / ".imgpkg" / "images.yml").exists()
    assert "nowhere.example/shop/app@sha256:" in transship("archive", "list", path).out


def test_the_old_archive_cannot_be_read_for_resuming(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar")
    done = transship("copy", "-b", shop.reference, "--to-tar", str(path), "--resume")

    assert done.code == 1
    assert "Reading previously created tar" in done.err
    assert path.read_bytes() == b"no tar"
