"""A hint leads somewhere: what it names exists, and doing it mends the case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers.docker_registry import DockerRegistry
from tests.support.command import transship
from tests.support.content import FOREIGN_LAYER, Blob, bundle, image, index, layer, push
from tests.support.hints import strange_flags
from tests.support.signing import Signer

LOCK = "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"
MIRRORS = """version: 1
mirrors:
- name: app
  source: {{repository: {host}/image}}
  destinations: [{{repository: "oci:{folder}/{to}"}}]
  {tags}: [{{allow: [v1]}}]
"""


class Case(NamedTuple):
    """A command line that fails, what its error tells to use, and the command line that follows it."""

    wrong: str
    told: str
    mended: str


CASES = (
    Case("pull -i {host}/image:v1", "-o FOLDER", "pull -i {host}/image:v1 -o {folder}/out"),
    Case("pull -o {folder}/out", "-b, -i or --lock", "pull -b {host}/bundle:v1 -o {folder}/out"),
    Case("pull -b {host}/image:v1 -o {folder}/out", "-i instead of -b", "pull -i {host}/image:v1 -o {folder}/out"),
    Case("pull -i {host}/bundle:v1 -o {folder}/out", "-b instead of -i", "pull -b {host}/bundle:v1 -o {folder}/out"),
    Case("pull -i {host}/index:v1 -o {folder}/out", "{child}", "pull -i {host}/index@{child} -o {folder}/out"),
    Case(
        "pull -i {host}/bundle:v1 -r -o {folder}/out", "-b instead of -i", "pull -b {host}/bundle:v1 -r -o {folder}/out"
    ),
    Case(
        "pull -b {host}/bundle:v1 --image-is-bundle-check=false -o {folder}/out",
        "-i instead of -b",
        "pull -i {host}/bundle:v1 --image-is-bundle-check=false -o {folder}/out",
    ),
    Case(
        "pull -i {host}/image:v1 -o {folder}/mine", "remove the folder first", "pull -i {host}/image:v1 -o {folder}/n"
    ),
    Case(
        "copy -b {host}/image:v1 --to-repo {to}",
        "-i instead of -b",
        "copy -i {host}/image:v1 --to-repo {to}",
    ),
    Case(
        "copy -i {host}/bundle:v1 --to-repo {to}",
        "-b instead of -i",
        "copy -b {host}/bundle:v1 --to-repo {to}",
    ),
    Case(
        "copy -b {host}/bundle:v1 --ignore-bundle-check --to-repo {to}",
        "-i instead of -b",
        "copy -i {host}/bundle:v1 --ignore-bundle-check --to-repo {to}",
    ),
    Case(
        "copy -b {host}/bundle:v1 --ignore-bundle-check --to-repo {to}",
        "--shallow",
        "copy -b {host}/bundle:v1 --shallow --to-repo {to}",
    ),
    Case(
        "copy -i {host}/image:v1 --to-tar {folder}/x.tar --repair",
        "leave it out",
        "copy -i {host}/image:v1 --to-tar {folder}/x.tar",
    ),
    Case(
        "copy -i {host}/index:v1 --platform linux/s390x --to-repo {to}",
        "linux/arm64",
        "copy -i {host}/index:v1 --platform linux/arm64 --to-repo {to}",
    ),
    Case(
        "copy --tar {folder}/foreign.tar --to-repo {host}/other/foreign --include-non-distributable-layers",
        "leave it out here",
        "copy --tar {folder}/foreign.tar --to-repo {host}/other/foreign",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repos {to}",
        "did you mean --to-repo",
        "copy -i {host}/image:v1 --to-repo {to}",
    ),
    Case("coppy -i {host}/image:v1", "did you mean copy", "copy -i {host}/image:v1 --to-repo {to}"),
    Case(
        "copy -i https://{host}/image:v1 --to-repo {to}",
        "leave out http:// or https://",
        "copy -i {host}/image:v1 --to-repo {to}",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo {to} --report {folder}/none/r.json",
        "make the folder first",
        "copy -i {host}/image:v1 --to-repo {to} --report {folder}/r.json",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo {to} --receipt {folder}/mine --sign {key}",
        "check the path",
        "copy -i {host}/image:v1 --to-repo {to} --receipt {folder}/mine/r.json --sign {key}",
    ),
    Case(
        "copy -i {host}/image:v1 --to-tar {folder}/z.tar --base {folder}/none.tar",
        "check the path",
        "copy -i {host}/image:v1 --to-tar {folder}/z.tar",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo oci-archive:{folder}/none/z.tar",
        "make the folder first",
        "copy -i {host}/image:v1 --to-repo oci-archive:{folder}/mine/z.tar",
    ),
    Case("tag list -i {host}", "write {host}/REPOSITORY", "tag list -i {host}/image"),
    Case("copy -i {host}/image:v1 --to-repo {host}", "{host}/REPOSITORY", "copy -i {host}/image:v1 --to-repo {to}"),
    Case("mirror watch -f {good} --host none.invalid", "another --host", "mirror watch --help"),
    Case("init {good}", "check the path", "init {folder}/new"),
    Case("push -i {host}/pushed/a:v1", "-f PATH", "push -i {host}/pushed/a:v1 -f {folder}/mine"),
    Case("push -f {folder}/mine", "with -b or -i", "push -i {host}/pushed/a:v1 -f {folder}/mine"),
    Case(
        "push -i {host}/pushed/b:v1 -f {folder}/bundle",
        "-b instead of -i",
        "push -b {host}/pushed/b:v1 -f {folder}/bundle",
    ),
    Case("push -b {host}/pushed/c:v1 -f {folder}/mine", "with -i", "push -i {host}/pushed/c:v1 -f {folder}/mine"),
    Case(
        "push -i {host}/pushed/d@{child} -f {folder}/mine",
        "push to a tag",
        "push -i {host}/pushed/d:v1 -f {folder}/mine",
    ),
    Case(
        "push -i {host}/pushed/e:v1 -f {folder}/mine -l team",
        "KEY=VALUE",
        "push -i {host}/pushed/e:v1 -f {folder}/mine -l team=shop",
    ),
    Case("tag list", "-i REGISTRY/REPOSITORY", "tag list -i {host}/image"),
    Case("tag list -i {host}/image --column foo", "name, digest", "tag list -i {host}/image --column name"),
    Case("verify {host}/image:v9", "tag list", "tag list -i {host}/image"),
    Case("mirror deploy -f {good}", "PREFECT_API_URL", "mirror deploy --help"),
    Case("verify", "--all-tags REPOSITORY", "verify --all-tags {host}/image"),
    Case("archive plan -i {host}/image:v1", "--to-tar FILE", "archive plan -i {host}/image:v1 --to-tar {folder}/y.tar"),
    Case(
        "copy --tar {folder}/foreign.tar --only nothing:v1 --to-repo {host}/other/b",
        "archive list",
        "archive list {folder}/foreign.tar",
    ),
    Case("prune", "REGISTRY/REPOSITORY", "prune {host}/image --keep-tag v1"),
    Case("prune {host}/image", "--keep-", "prune {host}/image --keep-tag v1"),
    Case("prune {host}/image -f {good}", "name a destination", "prune oci:{folder}/kept -f {good}"),
    Case("mirror run -f {bad}", "did you mean tags?", "mirror run -f {good}"),
    Case("mirror run nosuch -f {good}", "app", "mirror run app -f {good}"),
    Case("mirror plan -f {folder}/none.yaml", "none.yaml", "mirror plan -f {good}"),
    Case("mirror validate -f {bad}", "did you mean tags?", "mirror validate -f {good}"),
    Case("mirror check --only {folder}/none.txt -f {good}", "check the path", "mirror plan -f {good}"),
    Case("mirror watch -f {folder}/none.yaml", "transship init", "init {folder}/new"),
    Case("mirror watch nosuch -f {good}", "known are app", "mirror plan app -f {good}"),
    Case("mirror watch -f {good} --interval often", "mirror watch --help", "mirror watch --help"),
    Case("init {folder}/begun", "name another folder", "init {folder}/new"),
    Case(
        "init {folder}/new --destination a.example/bb:1", "without one", "init {folder}/new --destination a.example/bb"
    ),
    Case("inspect", "name an image", "inspect {host}/image:v1"),
    Case(
        "inspect {host}/index:v1 --platform arm64", "OS/ARCHITECTURE", "inspect {host}/index:v1 --platform linux/arm64"
    ),
    Case(
        "inspect {host}/index:v1 --platform linux/s390x",
        "linux/arm64",
        "inspect {host}/index:v1 --platform linux/arm64",
    ),
    Case("inspect nothing:v1 --tar {folder}/foreign.tar", "archive list", "archive list {folder}/foreign.tar"),
    Case("tag delete -i {host}/image", "REGISTRY/REPOSITORY:TAG", "tag delete -i {host}/image:v1"),
    Case("tag delete -i {host}/index@{child}", "name one", "tag delete -i {host}/index:v1"),
    Case("auth check", "auth check --help", "auth check {host}/image"),
    Case("tag delete {host}/image:v1", "-i {host}/image:v1", "tag delete -i {host}/image:v1"),
    Case("copy {host}/image:v1 --to-repo {to}", "-i {host}/image:v1", "copy -i {host}/image:v1 --to-repo {to}"),
    Case("inspect {host}/image:v9", "transship tag list -i {host}/image", "tag list -i {host}/image"),
    Case("pull -i {host}/nothing:v9 -o {folder}/out", "tag list -i {host}/nothing", "tag list -i {host}/image"),
    Case("archive plan", "archive plan --help", "archive plan -i {host}/image:v1 --to-tar {folder}/y.tar"),
    Case("copy", "copy --help", "copy -i {host}/image:v1 --to-repo {to}"),
    Case("copy -i {host}/image:v1 --to-repo", "transship copy --help", "copy -i {host}/image:v1 --to-repo {to}"),
    Case("copy --plan=maybe", "transship copy --help", "copy -i {host}/image:v1 --to-repo {to} --plan=true"),
    Case(
        "push -i oci-archive:{folder}/z.tar -f {folder}",
        "--to-tar {folder}/z.tar",
        "push -i {to}:v1 -f {good} --to-tar {folder}/z.tar",
    ),
    Case("tag --json=maybe list", "transship tag --help", "tag list -i {host}/image"),
    Case("inspect foreign.tar", "oci-archive:foreign.tar", "inspect oci-archive:{folder}/foreign.tar"),
    Case(
        "pull -i oci-archive:{folder}/foreign.tar -o {folder}/out",
        "transship copy -i",
        "copy -i oci-archive:{folder}/foreign.tar --to-repo oci:{folder}/new",
    ),
    Case("mirror watch -f {good} --interval 0", "1s is the least", "mirror watch --help"),
    Case("auth check {folder}/none.yaml", "transship init", "auth check {good}"),
    Case(
        "receipt verify {folder}/foreign.tar --key {key}.pub",
        "copy --receipt FILE --sign KEY",
        "copy -i {host}/image:v1 --to-repo {to} --receipt {folder}/r.json --sign {key}",
    ),
    Case(
        "receipt verify {host}/image:v1 --key {key}.pub",
        "--attach-receipt",
        "copy -i {host}/image:v1 --to-repo {host}/other/receipt --attach-receipt --sign {key}",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo {to} --receipt {folder}/r.json --sign {folder}/none",
        "private key",
        "copy -i {host}/image:v1 --to-repo {to} --receipt {folder}/r.json --sign {key}",
    ),
    Case(
        "archive verify {folder}/foreign.tar --key {key}.pub",
        "--sign KEY",
        "copy -i {host}/image:v1 --to-tar {folder}/signed.tar --sign {key}",
    ),
    Case(
        "policy check {host}/image:v1",
        "version: 1`, `default: reject`, `rules: [{{to: HOST/*, keys: [cosign.pub]}}]",
        "policy check {host}/image:v1 --policy {policy} --to a.example/bb",
    ),
    Case(
        "policy check {host}/image:v1 --policy {folder}/none.yaml",
        "write a policy file",
        "policy check {host}/image:v1 --policy {policy} --to a.example/bb",
    ),
    Case("policy check {host}/image:v1 --policy {policy}", "change the rule", "policy check --help"),
    Case(
        "copy -i {host}/image:v1 --to-repo docker-archive:{folder}/d.tar --plan",
        "use --to-tar",
        "copy -i {host}/image:v1 --to-tar {folder}/d.tar --plan",
    ),
    Case(
        "copy -i {host}/index:v1 --to-repo docker-archive:{folder}/d.tar",
        "--platform linux/amd64",
        "copy -i {host}/index:v1 --platform linux/amd64 --to-repo docker-archive:{folder}/d.tar",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo docker-archive:",
        "docker-archive:PATH",
        "copy -i {host}/image:v1 --to-repo docker-archive:{folder}/d.tar",
    ),
    Case(
        "copy -i {host}/image:v1 --to-repo {host}/other/d:1",
        "without one",
        "copy -i {host}/image:v1 --to-repo {host}/other/d",
    ),
    Case("prune --approve {folder}/none.json", "put it at the end", "prune {host}/image --keep-tag v1 --approve"),
    Case("completion nosuch", "completion --help", "completion bash"),
    Case("help nosuch", "help --help", "help copy"),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with DockerRegistry(tmp_path_factory.mktemp("hints"), foreign_urls=True) as registry:
        plain = push(registry.url, "image", image(501), "v1")
        push(registry.url, "index", CHILDREN, "v1")
        push(registry.url, "bundle", bundle([plain]), "v1")
        absent = Blob(FOREIGN_LAYER, layer(504).data, urls=("https://foreign.invalid/layer",), absent=True)
        push(registry.url, "foreign", image(505, layers=[absent, layer(506)]), "v1")
        yield registry.host


SIGNER = Signer.make()
POLICY = "version: 1\ndefault: reject\nrules: [{to: a.example/*, accept: true}]\n"
GROUPS = ("archive", "auth", "mirror", "policy", "receipt", "tag")
CHILDREN = index([image(502), image(503)], ["linux/amd64", "linux/arm64"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.wrong.replace("{host}/", "").replace("{folder}/", ""))
def test_doing_what_the_error_tells_mends_the_case(host: str, tmp_path: Path, case: Case) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "mirrors.yaml").write_text("mine")
    SIGNER.write(tmp_path / "own.pub")
    (tmp_path / "own").write_bytes(SIGNER.private())
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "mine" / "file.txt").write_text("mine")
    (tmp_path / "bundle" / ".imgpkg").mkdir(parents=True)
    (tmp_path / "bundle" / ".imgpkg" / "images.yml").write_text(LOCK)
    for name, tags, to in (("good", "tags", "kept"), ("bad", "tagz", "kept")):
        (tmp_path / f"{name}.yaml").write_text(MIRRORS.format(host=host, folder=tmp_path, tags=tags, to=to))
    values = {
        "host": host,
        "folder": str(tmp_path),
        "to": f"oci:{tmp_path}/to",
        "child": CHILDREN.children[0].digest,
        "good": str(tmp_path / "good.yaml"),
        "bad": str(tmp_path / "bad.yaml"),
        "key": str(tmp_path / "own"),
        "policy": str(tmp_path / "policy.yaml"),
    }
    if "foreign.tar" in case.wrong:
        assert transship("copy", "-i", f"{host}/foreign:v1", "--to-tar", str(tmp_path / "foreign.tar")).code == 0
    if "{good}" in case.mended and "prune" in case.mended:
        assert transship("mirror", "run", "-f", values["good"]).code == 0

    nowhere = {"PREFECT_API_URL": ""}
    wrong = transship(*[word.format(**values) for word in case.wrong.split()], environ=nowhere)
    mended = transship(*[word.format(**values) for word in case.mended.split()], environ=nowhere)

    assert wrong.code in (1, 2, 3)
    assert case.told.format(**values) in wrong.err
    words = case.wrong.split()
    name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
    assert strange_flags(name, wrong.err) <= {"--to-repos"}
    assert mended.code == 0, mended.err
