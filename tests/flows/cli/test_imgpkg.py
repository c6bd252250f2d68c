"""The command under the name `imgpkg`: what imgpkg's own end-to-end suite and its users' scripts look for.

Each row of the tables is a command line and what imgpkg 0.43 answers to it: exit code, stream and sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml

from tests.servers.docker_registry import DockerRegistry
from tests.servers.go_registry import GoRegistry
from tests.servers.strict_registry import Features
from tests.support.command import Done, imgpkg, transship
from tests.support.content import (
    FOREIGN_LAYER,
    Blob,
    Content,
    bundle,
    digest_of,
    image,
    index,
    layer,
    push,
    signature,
    signature_tag,
)

RESTRICTED = "application/vnd.oci.image.layer.nondistributable.v1.tar"
USER, PASSWORD = "some-user", "some-password"
LOCK = "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
SKIPPED = (
    "Skipped the followings layer(s) due to it being non-distributable. If you would like to include non-distributable "
    "layers, use the --include-non-distributable-layers flag"
)
NONE_SKIPPED = "'--include-non-distributable-layers' flag provided, but no images contained a non-distributable layer."


class Place(NamedTuple):
    """A registry with one of each: `image`, which is signed, the index `several`, and `bundle`, which lists all."""

    registry: DockerRegistry
    image: Content
    several: Content
    nested: Content
    bundle: Content
    signature: Content

    @property
    def host(self) -> str:
        return self.registry.host


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with DockerRegistry(tmp_path_factory.mktemp("parity"), foreign_urls=True) as registry:
        plain, several = image(401), index([image(402), image(403)], ["linux/amd64", "linux/arm64"])
        nested = bundle([push(registry.url, "image", plain, "v1")])
        listed = [
            push(registry.url, "nested", nested, "v1"),
            push(registry.url, "index", several, "v1"),
            push(registry.url, "image", plain, "v1"),
        ]
        root, signed = bundle(listed), signature(plain)
        push(registry.url, "bundle", root, "v1")
        push(registry.url, "image", signed, signature_tag(plain))
        yield Place(registry, plain, several, nested, root, signed)


def filled(words: str, **values: str) -> list[str]:
    return [word.format(**values) for word in words.split()]


NOT_A_BUNDLE = "Expected bundle image but found plain image (hint: Did you use -i instead of -b?)"
REFUSED = {
    "": "Invalid command - see available commands/subcommands above",
    "nope": "command 'imgpkg' does not accept extra arguments 'nope'",
    "tag": "Use one of available subcommands: list, resolve",
    "pull --nope": "unknown flag: --nope",
    "pull -q": "unknown shorthand flag: 'q' in -q",
    "pull foo": "command 'imgpkg pull' does not accept extra arguments 'foo'",
    "pull --image": "flag needs an argument: --image",
    "pull -i {host}/image": 'required flag(s) "output" not set',
    "pull -o {out}": "Expected either image or bundle reference",
    "pull -i {host}/image:v1 -o /": "Disallowed output directory (trying to avoid accidental deletion)",
    "pull -i {host}/image -b {host}/image -o {out}": "Expected only one of image, bundle, or lock",
    "pull -i {host}/image:v1 -r -o {out}": "Cannot use --recursive (-r) flag when pulling an image",
    "pull -b {host}/bundle:v1 --image-is-bundle-check=false -o {out}": (
        "Cannot set --image-is-bundle-check while using -b flag"
    ),
    "pull -b {host}/image:v1 -o {out}": NOT_A_BUNDLE,
    "pull -b {host}/index:v1 -o {out}": NOT_A_BUNDLE,
    "pull -i {host}/bundle:v1 -o {out}": (
        "Expected bundle flag when pulling a bundle (hint: Use -b instead of -i for bundles)"
    ),
    "pull -i {host}/index:v1 -o {out}": (
        "Unable to pull non-images, such as image indexes. (hint: provide a specific digest to the image instead)"
    ),
    "copy -b {host}/image:v1 --to-tar {out}": NOT_A_BUNDLE,
    "copy -i {host}/bundle:v1 --to-tar {out}": (
        "Expected bundle flag when copying a bundle (hint: Use -b instead of -i for bundles)"
    ),
    "copy -b {host}/bundle:v1": "Expected either --to-tar or --to-repo",
    "copy --to-repo {host}/x/y": "Expected either --lock, --bundle (-b), --image (-i), or --tar as a source",
    "copy --tar {out} --to-tar {out}": "Cannot use tar source (--tar) with tar destination (--to-tar)",
    "copy -i {host}/image --to-tar {out} --lock-output bogus": "cannot output lock file with tar destination",
    "copy -i {host}/image --to-repo {host}/x/y --resume": "Flag --resume can only be used when copying to tar",
    "copy -b {host}/bundle:v1 --to-repo {host}/x/y:tag": "Building import repository ref:",
    "push -i {host}/x/y -b {host}/x/y -f {files}": "Expected only one of image or bundle",
    "push -f {files}": "Expected either image or bundle",
    "push -i {host}/x/y -f {files} --lock-output {out}": (
        "Lock output is not compatible with image, use bundle for lock output"
    ),
    "push -i {host}/x/y -f {files}/d": (
        "Images cannot be pushed with '.imgpkg' directories, consider using --bundle (-b) option"
    ),
    "push -b {host}/x/y -f {files}/none": "This directory is not a bundle. It is missing .imgpkg/images.yml",
    "push -b {host}/x/y -f {files}/d -f {files}/e": (
        "This directory contains multiple bundle definitions. Only a single instance of .imgpkg/images.yml can be "
        "provided and instead these were provided {files}/d/.imgpkg, {files}/e/.imgpkg"
    ),
    "push -b {host}/x/y -f {files}/above -f {files}/none": (
        "Expected '.imgpkg' directory, to be a direct child of one of: {files}/above, {files}/none; was "
        "{files}/above/x/.imgpkg"
    ),
    "push -b {host}/x/Y -f {files}/e": "Parsing '{host}/x/Y': repository can only contain the characters",
    "push -i {host}/x/y@{digest} -f {files}/e": "Parsing '{host}/x/y@{digest}': ",
    "push -b {host}/x/y -f {files}/e -l dev.carvel.imgpkg.bundle=1": (
        "label 'dev.carvel.imgpkg.bundle' is reserved and cannot be overriden. Please use a different key"
    ),
    "copy --lock {files}/lock.yml --to-tar {out}": (
        "Unable to copy bundles using an Images Lock file (hint: Create a bundle with these images)"
    ),
    "describe -b {host}/bundle:v1 -o json": "--output-type can only have the following values: [text, yaml]",
    "describe -b {host}/image:v1": "Only bundles can be described, and {host}/image:v1 is not a bundle",
}
"""Command lines that imgpkg refuses, and its sentence; ours may follow it."""


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words.split("{")[0] or "nothing")
def test_it_refuses_in_imgpkgs_words_with_1_and_under_our_name_with_2(place: Place, tmp_path: Path, words: str) -> None:
    files = tmp_path / "files"
    for name in ("d", "e", "above/x"):
        (files / name / ".imgpkg").mkdir(parents=True)
        (files / name / ".imgpkg" / "images.yml").write_text(LOCK)
    (files / "none").mkdir()
    (files / "lock.yml").write_text(f"{LOCK}images:\n- image: {place.host}/nested@{place.nested.digest}\n")
    values = {"host": place.host, "out": str(tmp_path / "out"), "files": str(files), "digest": place.image.digest}
    arguments = filled(words, **values)
    done, own = imgpkg(*arguments), transship(*arguments)

    said = f"Error: {REFUSED[words].format(**values)}"
    assert (done.code, own.code) == (1, 2), done.err + own.err
    assert done.err.startswith(f"imgpkg: {said}")
    assert own.err.startswith(f"transship: {said.replace('imgpkg', 'transship') if 'command' in said else said}")
    assert not (tmp_path / "out").exists()


VERSION = "apiVersion: imgpkg.carvel.dev/v1alpha1\n"
UNUSABLE = {
    f"{VERSION}kind: ImagesLock\nimages:\n- image: nginx:v1\n": (
        "Validating images lock:\n  Expected ref to be in digest form, got 'nginx:v1'"
    ),
    f"{VERSION}kind: BundleLock\nbundle:\n  image: nginx:v1\n": (
        "Validating bundle lock:\n  Expected ref to be in digest form, got 'nginx:v1'"
    ),
    f"{VERSION}kind: ImagesLock\nanother-key: invalid\n": (
        'Unmarshaling images lock: error unmarshaling JSON: while decoding JSON: json: unknown field "another-key"'
    ),
    "apiVersion: v2\nkind: ImagesLock\n": (
        "Validating images lock:\n  Validating apiVersion:\n    Unknown version (known: imgpkg.carvel.dev/v1alpha1)"
    ),
    f"{VERSION}kind: Bundle\n": "Validating images lock:\n  Validating kind:\n    Unknown kind (known:",
    "": "Reading path {path}: open {path}: no such file or directory",
}
"""Lock files that imgpkg refuses, and its sentence, cut into lines as it cuts them; ours follows."""


@pytest.mark.parametrize("text", UNUSABLE, ids=UNUSABLE.values())
@pytest.mark.parametrize("words", ["copy --lock {path} --to-repo r.example/x/y", "pull --lock {path} -o {out}"])
def test_a_lock_that_can_not_be_used_is_said_in_imgpkgs_words(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.yml"
    if text:
        path.write_text(text)
    done = imgpkg(*filled(words, path=str(path), out=str(tmp_path / "out")))

    assert done.code == 1
    assert done.err.startswith(f"imgpkg: Error: {UNUSABLE[text].format(path=path)}")
    assert f"\nCause: {'reading the lock file ' if not text else ''}{path}: " in done.err


def test_pull_takes_no_images_lock(tmp_path: Path) -> None:
    (tmp_path / "lock.yml").write_text(LOCK)
    done = imgpkg("pull", "--lock", str(tmp_path / "lock.yml"), "-o", str(tmp_path / "out"))

    assert done.code == 1
    assert "Validating bundle lock:\n  Validating kind:\n    Unknown kind (known:\n      BundleLock)" in done.err


FETCHING = {
    "pull -i {host}/nothing -o /dev/null": "manifests/latest",
    "pull -b {host}/nothing:1.0 -o {out}": "manifests/1.0",
    "copy -b {host}/nothing --to-repo {host}/x/y": "manifests/latest",
    "copy -i {host}/nothing --to-tar {out}": "manifests/latest",
    "describe -b {host}/nothing": "manifests/latest",
}


@pytest.mark.parametrize("words", FETCHING)
def test_what_is_not_there_is_said_with_request_and_code_before_the_output_is_looked_at(
    tmp_path: Path, words: str
) -> None:
    with GoRegistry() as registry:
        done = imgpkg(*filled(words, host=registry.host, out=str(tmp_path / "out")), "--tty")

    assert (done.code, done.out) == (1, "")
    assert re.match(
        r"imgpkg: Error: Fetching image:\n\s+GET http://127.0.0.1:[0-9]+/v2/nothing/"
        rf"{FETCHING[words]}:\n\s+NAME_UNKNOWN:\n\s+Unknown name",
        done.err,
    )


def test_a_resolved_digest_that_is_not_there_is_named(place: Place) -> None:
    done = imgpkg("tag", "resolve", "-i", f"{place.host}/image@sha256:{'8f' * 32}")

    assert done.code == 1
    assert "8f" * 32 in done.err


def test_debug_shows_headers_with_a_fingerprint_for_each_secret(tmp_path: Path) -> None:
    with GoRegistry(Features(user=f"{USER}:{PASSWORD}")) as registry:
        push_as = ("--registry-username", USER, "--registry-password", PASSWORD)
        done = imgpkg("pull", "--tty", "-i", f"{registry.host}/nothing", "--debug", "-o", "/dev/null", *push_as)

    assert done.code == 1
    assert "> Accept-Encoding: " in done.err
    assert "< content-type: " in done.err
    marks = set(re.findall(r"> Authorization: Basic \(fingerprint ([0-9a-f]{8})\)", done.err))
    assert len(marks) == 1
    assert PASSWORD not in done.err
    assert "c29tZS11c2Vy" not in done.err


def test_a_wrong_password_is_answered_in_the_words_of_the_registry(tmp_path: Path) -> None:
    with GoRegistry(Features(user=f"{USER}:{PASSWORD}")) as registry:
        done = imgpkg(
            "pull", "-i", f"{registry.host}/imgpkg-test", "-o", str(tmp_path / "out"),
            "--registry-username", "incorrect-user", "--registry-password", "incorrect-password",
        )  # fmt: skip

    assert done.code == 1
    assert "unexpected status code 401 Unauthorized: incorrect username or password" in done.err


def test_a_registry_whose_base_alone_challenges_is_pushed_to_and_copied_from(tmp_path: Path) -> None:
    (tmp_path / ".imgpkg").mkdir()
    (tmp_path / ".imgpkg" / "images.yml").write_text(LOCK)
    with GoRegistry(Features(user=f"{USER}:{PASSWORD}")) as private, GoRegistry() as public:
        login = {
            "IMGPKG_REGISTRY_HOSTNAME": private.host,
            "IMGPKG_REGISTRY_USERNAME": USER,
            "IMGPKG_REGISTRY_PASSWORD": PASSWORD,
        }
        pushed = imgpkg("push", "--tty", "-b", f"{private.host}/repo/bundle", "-f", str(tmp_path), environ=login)
        reference = re.search(r"Pushed '(\S+@sha256:[0-9a-f]{64})'", pushed.out)
        assert reference is not None, pushed.err
        copied = imgpkg("copy", "-b", reference[1], "--to-repo", f"{public.host}/repo/bundle", environ=login)
        again = imgpkg(
            "copy", "-b", f"{public.host}/repo/bundle@{reference[1][-71:]}", "--to-repo", f"{public.host}/again"
        )

    assert (copied.code, again.code) == (0, 0), copied.err + again.err


def test_an_unknown_keychain_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = imgpkg("pull", "-i", "some-image", "-o", out, environ={"IMGPKG_ACTIVE_KEYCHAINS": "gke,random-name"})

    assert done.code == 1
    assert "Unable to load keychain for random-name, available keychains [aks, ecr, gke, github]" in done.err


def test_a_slow_registry_times_out_in_gos_words(tmp_path: Path) -> None:
    with GoRegistry() as registry:
        reference = push(registry.url, "slow", image(404))
        registry.delay = 3.0
        done = imgpkg(
            "pull", "--registry-response-header-timeout", "100ms", "-i", reference, "-o", str(tmp_path / "out")
        )

    assert done.code == 1
    assert "timeout awaiting response headers" in done.err


def test_the_version_is_that_of_the_imgpkg_it_equals() -> None:
    for words in (("version",), ("--version",)):
        done = imgpkg(*words)
        assert (done.code, done.out.splitlines()[0]) == (0, "imgpkg version 0.43.0")
    assert transship("version").out.startswith("transship version ")


def test_an_image_of_no_files_is_imgpkgs_to_push(place: Place, repository: str) -> None:
    reference = f"{place.host}/{repository}:v1"
    assert imgpkg("push", "-i", reference).code == 0
    done = transship("push", "-i", reference)

    assert done.code == 2
    assert "-f PATH" in done.err


def test_json_has_what_imgpkg_has_and_nothing_else(place: Place) -> None:
    listed = json.loads(imgpkg("tag", "list", "-i", f"{place.host}/image", "--digests=true", "--json").out)

    assert list(listed) == ["Tables", "Blocks", "Lines"]
    rows = {row["name"]: row["digest"] for row in listed["Tables"][0]["Rows"]}
    assert rows["v1"] == place.image.digest
    assert (
        "digest"
        not in json.loads(imgpkg("tag", "list", "-i", f"{place.host}/image", "--json").out)["Tables"][0]["Rows"][0]
    )


def foreign(place: Place, repository: str, kind: str) -> tuple[Content, Blob]:
    """An image with a non-distributable layer, which its own registry serves at the URL in its descriptor."""
    data = layer(405).data
    blob = Blob(kind, data, urls=(f"{place.registry.url}/v2/{repository}/blobs/{digest_of(data)}",))
    made = image(406, layers=[layer(407), blob])
    push(place.registry.url, repository, made, "latest")
    return made, blob


def has_blob(url: str, repository: str, blob: Blob) -> bool:
    return httpx.head(f"{url}/v2/{repository}/blobs/{digest_of(blob.data)}").status_code == 200


@pytest.mark.parametrize("kind", [RESTRICTED, FOREIGN_LAYER])
def test_layers_that_may_not_be_distributed(
    place: Place, other_registry: DockerRegistry, repository: str, tmp_path: Path, kind: str
) -> None:
    made, blob = foreign(place, repository, kind)
    source, tar, full = f"{place.host}/{repository}", str(tmp_path / "x.tar"), str(tmp_path / "full.tar")
    with_them = "--include-non-distributable-layers"

    exported = imgpkg("copy", "--tty", "-i", source, "--to-tar", tar)
    mounted = imgpkg("copy", "--tar", tar, "--to-repo", f"{source}/mounted", with_them)
    lacking = imgpkg("copy", "--tar", tar, "--to-repo", f"{other_registry.host}/{repository}", with_them)
    whole = imgpkg("copy", "--tty", "-i", source, "--to-tar", full, with_them)
    without = imgpkg("copy", "--tty", "--tar", full, "--to-repo", f"{source}/without")
    back = imgpkg("copy", "-i", f"{source}/without@{made.digest}", "--to-tar", f"{full}2", with_them)

    named = "\n - Image: {}@{}\n   Layers:\n     - {}\n"
    assert f"Warning: {SKIPPED}{named.format(source, made.digest, digest_of(blob.data))}" in exported.out
    assert mounted.code == 0, mounted.err
    assert has_blob(place.registry.url, f"{repository}/mounted", blob)
    assert lacking.code == 1
    assert re.search(
        r"Error: file sha256-[0-9a-f]{64}\.tar\.gz not found in tar.*\(hint: This may be because when copying to a "
        r"tarball, the --include-non-distributable-layers flag should have been provided\.\)",
        lacking.err,
    )
    assert (whole.code, SKIPPED in whole.out, NONE_SKIPPED in whole.out) == (0, False, False)
    assert f"Warning: {SKIPPED}{named.format(f'{source}/without', made.digest, digest_of(blob.data))}" in without.out
    assert not has_blob(place.registry.url, f"{repository}/without", blob)
    assert back.code == 0, back.err


def test_a_flag_for_layers_that_no_image_has_is_said(place: Place, tmp_path: Path) -> None:
    done = imgpkg(
        "copy", "--tty", "-i", f"{place.host}/image:v1", "--to-tar", str(tmp_path / "x.tar"),
        "--include-non-distributable-layers",
    )  # fmt: skip

    assert f"Warning: {NONE_SKIPPED}\n" in done.out


@pytest.fixture(scope="module")
def relocated(place: Place) -> str:
    target = f"{place.host}/relocated"
    done = imgpkg("copy", "-b", f"{place.host}/bundle:v1", "--to-repo", target, "--cosign-signatures")
    assert (done.code, done.out) == (0, ""), done.err
    return target


def internal(place: Place, content: Content) -> tuple[str, str]:
    """The locations image of a relocated bundle, and its layer."""
    answer = httpx.get(
        f"{place.registry.url}/v2/relocated/manifests/sha256-{content.hex}.image-locations.imgpkg",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    return answer.headers["Docker-Content-Digest"], answer.json()["layers"][0]["digest"]


def test_describe_lists_the_layers_of_every_kind(place: Place, relocated: str) -> None:
    text = imgpkg("describe", "-b", f"{relocated}@{place.bundle.digest}").out
    document = imgpkg("describe", "-b", f"{relocated}@{place.bundle.digest}", "-o", "yaml").out
    bare = imgpkg("describe", "-b", f"{relocated}@{place.bundle.digest}", "--layers=false").out

    first = {one: one.blobs[0].descriptor()["digest"] for one in (place.image, place.nested, place.signature)}
    locations, locations_layer = internal(place, place.bundle)
    tag = signature_tag(place.image)
    for expected in (
        (
            f"  - Image: {relocated}@{place.nested.digest}\n    Type: Bundle\n    Origin: {place.host}/nested@"
            f"{place.nested.digest}\n    Layers:\n      - Digest: {first[place.nested]}\n"
        ),
        (
            f"  - Image: {relocated}@{place.image.digest}\n    Type: Image\n    Origin: {place.host}/image@"
            f"{place.image.digest}\n    Layers:\n      - Digest: {first[place.image]}\n"
        ),
        (
            f"  - Image: {relocated}@{place.signature.digest}\n    Type: Signature\n    Layers:\n"
            f"      - Digest: {first[place.signature]}\n    Annotations:\n      tag: {tag}\n"
        ),
        f"  - Image: {relocated}@{locations}\n    Type: Internal\n    Layers:\n      - Digest: {locations_layer}\n",
    ):
        assert expected in text
    head, _, body = document.partition("\n")
    content = yaml.safe_load(body)["content"]["images"]
    assert head == f"sha: {place.bundle.digest}"
    assert content[place.signature.digest]["layers"] == [{"digest": first[place.signature]}]
    assert content[locations]["layers"] == [{"digest": locations_layer}]
    assert "Layers:" not in bare


def test_the_lines_on_a_terminal_are_imgpkgs(place: Place, repository: str, tmp_path: Path) -> None:
    target, out = f"{place.host}/{repository}", tmp_path / "out"
    copied = imgpkg("copy", "--tty", "-b", f"{place.host}/bundle:v1", "--to-repo", target)
    pulled = imgpkg("pull", "--tty", "-r", "-b", f"{target}:v1", "-o", str(out))

    assert lines_with(copied, "copy | exporting 4 images...") == 1
    assert lines_with(copied, "copy | will export ") == 4
    assert lines_with(copied, "copy | Tagging images") == 1
    assert lines_with(pulled, f"Pulling bundle '{target}@{place.bundle.digest}'") == 1
    assert lines_with(pulled, f"  Pulling nested bundle '{target}@{place.nested.digest}'") == 1
    assert lines_with(pulled, f"The bundle repo ({target}) is hosting every image specified in the bundle's") == 1
    assert (copied.out[-10:], pulled.out[-10:]) == ("Succeeded\n", "Succeeded\n")


def lines_with(done: Done, start: str) -> int:
    return sum(line.startswith(start) for line in done.out.splitlines())
