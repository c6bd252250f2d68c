"""`transship mirror`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli.output import ExitCode
from oci.mirror.run_state import AGES_UNKNOWN
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.docker_registry import DockerRegistry
from tests.servers.registry_data import blob_file, seed
from tests.servers.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, SeaweedFS
from tests.support.command import transship, transship_on_terminal
from tests.support.content import Content, digest_of, image
from tests.support.mirroring import variant


def versions(*tags: str) -> dict[str, Content]:
    base = image(1)
    return {tag: variant(base, number) for number, tag in enumerate(tags)}


class File:
    """A file of mirrors: `web`, and others as they are added."""

    def __init__(self, folder: Path, source: DockerRegistry, destination: DockerRegistry, repository: str) -> None:
        self.path = folder / "mirrors.yaml"
        self.source = f"{source.host}/{repository}"
        self.destination = f"{destination.host}/{repository}"
        self.mirrors = [self._mirror("web", self.source, self.destination)]
        self.write()

    def add(self, name: str, source: str) -> None:
        self.mirrors.append(self._mirror(name, source, f"{self.destination}-{name}"))
        self.write()

    def write(self) -> None:
        defaults = "defaults: {immutable: ['\\d+\\.\\d+']}\n"
        self.path.write_text(f"version: 1\n{defaults}mirrors:\n{''.join(self.mirrors)}")

    @staticmethod
    def _mirror(name: str, source: str, destination: str) -> str:
        places = f"    source: {{repository: {source}}}\n    destinations: [{{repository: {destination}}}]\n"
        return f"  - name: {name}\n{places}"


@pytest.fixture
def file(registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path) -> File:
    seed(registry, repository, versions("1.0", "1.1", "latest"))
    return File(tmp_path, registry, other_registry, repository)


def mirror(verb: str, file: File, *arguments: str) -> tuple[int, str, str]:
    done = transship("mirror", verb, "-f", str(file.path), *arguments)
    return done.code, done.out, done.err


def test_a_plan_says_what_a_run_would_copy_and_copies_nothing(file: File, other_registry: DockerRegistry) -> None:
    code, out, err = mirror("plan", file)

    rows = [line.split("\t")[:4] for line in out.splitlines()]
    assert code == 0
    assert [file.destination, "1.0"] in [row[2:] for row in rows]
    assert "web: 3 images to copy, 0 tags in place" in err
    assert other_registry.repository_tags(file.destination.partition("/")[2]) == []


def test_a_plan_as_json_has_bytes_and_requests(file: File, tmp_path: Path) -> None:
    target = tmp_path / "plan.json"

    code, out, _ = mirror("plan", file, "--json", "--output", str(target))

    plan = json.loads(target.read_text())["mirrors"][0]
    assert code == 0
    assert json.loads(out)["Tables"][0]["Content"] == "images"
    assert plan["bytes_to_move"] == sum(len(blob.data) for blob in image(1).blobs)
    assert plan["requests"][file.source.partition("/")[0]] > 0


def test_a_run_copies_and_a_second_one_has_nothing_to_do(file: File, other_registry: DockerRegistry) -> None:
    first, again = mirror("run", file), mirror("run", file, "web")

    assert first[0] == again[0] == 0
    assert "web: 3 copied, 0 in place, 0 failed" in first[2]
    assert "web: 0 copied, 3 in place, 0 failed" in again[2]
    assert other_registry.repository_tags(file.destination.partition("/")[2]) == ["1.0", "1.1", "latest"]


def test_a_check_exits_with_4_when_there_is_drift(file: File, registry: DockerRegistry, repository: str) -> None:
    before = mirror("check", file)
    mirror("run", file)
    after = mirror("check", file)
    seed(registry, repository, {"1.0": variant(image(1), 90)})
    moved = mirror("check", file)

    assert (before[0], after[0], moved[0]) == (4, 0, 4)
    assert "3 missing" in before[2]
    assert "web: 3 in place" in after[2]
    assert "1 mutated" in moved[2]
    assert "declared immutable" in moved[1]


def test_a_moved_immutable_tag_fails_an_audited_run(file: File, registry: DockerRegistry, repository: str) -> None:
    mirror("run", file)
    seed(registry, repository, {"1.0": variant(image(1), 91)})

    code, _, err = mirror("run", file, "--audit")

    assert code == 3
    assert "Warning: web: immutable tag 1.0 moved" in err
    assert "--only" not in err.splitlines()[-1]
    assert "what is immutable or refused stays as it is" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("run", ["--report"]),
        ("run", ["--metrics-file"]),
        ("check", ["--report"]),
        ("plan", ["--output"]),
    ],
)
def test_no_output_takes_the_place_of_the_file_of_mirrors(file: File, verb: str, flags: list[str]) -> None:
    before = file.path.read_bytes()
    code, _, err = mirror(verb, file, *flags, str(file.path.parent / "." / file.path.name))

    assert code == ExitCode.USAGE
    assert f"{flags[0]} would be written in the place of {file.path}" in err
    assert file.path.read_bytes() == before


def test_two_outputs_have_two_files(file: File, tmp_path: Path) -> None:
    both = ("--report", str(tmp_path / "both"), "--metrics-file", str(tmp_path / "both"))
    once = ("--report", "/dev/null", "--metrics-file", "/dev/null")

    assert mirror("run", file, *both)[0] == ExitCode.USAGE
    assert mirror("run", file, *once)[0] == 0


def test_what_fails_is_listed_with_its_cause_and_run_again_alone(
    file: File, registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    broken = image(990 + len(repository) + int("".join(filter(str.isdigit, repository))))
    seed(registry, f"{repository}-broken", {"1.0": broken})
    data = blob_file(registry, digest_of(broken.blobs[0].data))
    kept = data.read_bytes()
    data.unlink()
    file.add("broken", f"{file.source}-broken")
    file.add("nowhere", "127.0.0.1:1/no/where")
    report = str(tmp_path / "report.json")

    code, _, err = mirror("run", file, "--report", report, "--registry-retry-count", "0")
    data.write_bytes(kept)
    again = mirror("run", file, "broken", "--only", report)
    useless = mirror("run", file, "nowhere", "--registry-retry-count", "0")

    assert code == 3
    assert "2 of 3 mirrors aren't complete: broken, nowhere" in err
    assert "blob unknown" in err
    assert "Connection refused" in err
    assert again[0] == 0
    assert "broken: 1 copied, 0 in place, 0 failed" in again[2]
    assert useless[0] == 1


def test_mistakes_in_the_file_are_said_with_their_lines(file: File) -> None:
    file.mirrors.append("    tagz: []\n")
    file.write()

    code, _, err = mirror("run", file)

    assert code == 2
    assert f"{file.path}:7: mirrors[0].tagz: unknown key; did you mean tags?" in err


def test_wrong_names_and_files_are_said(file: File, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")

    assert "did you mean web?" in mirror("run", file, "wep")[2]
    assert "no such file" in transship("mirror", "run", "-f", str(tmp_path / "none.yaml")).err
    assert "names nothing" in mirror("run", file, "--only", str(empty))[2]
    assert "Use one of available subcommands" in transship("mirror").err


def test_on_a_terminal_each_image_has_a_line(file: File) -> None:
    done = transship_on_terminal("mirror", "run", "-f", str(file.path))

    assert done.code == 0
    assert f":1.1 -> {file.destination}" in done.out
    assert "Mirror  Copied  In place  Failed" in done.out
    assert done.out.rstrip().endswith("Succeeded")


def test_the_schema_is_json_that_knows_mirrors() -> None:
    done = transship("mirror", "schema")

    assert done.code == 0
    assert json.loads(done.out)["properties"]["mirrors"]["items"] == {"$ref": "#/$defs/Mirror"}


def test_an_empty_file_of_mirrors_is_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    path.write_text("version: 1\nmirrors: []\n")

    assert transship("mirror", "run", "-f", str(path)).code == 0
    assert transship("mirror", "check", "-f", str(path)).code == 0


def test_an_archive_goes_to_the_bucket_that_the_file_describes_with_the_keys_of_the_environment(
    file: File, object_store: SeaweedFS, s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    bucket = f"{{endpoint: '{object_store.endpoint}', region: us-east-1, path_style: true}}"
    mirrors = "".join(file.mirrors).replace(f"{{repository: {file.destination}}}", f"{{archive: '{s3_location}'}}")
    file.path.write_text(f"version: 1\nbuckets: {{{BUCKET}: {bucket}}}\nmirrors:\n{mirrors}")

    results = [mirror(verb, file) for verb in ("plan", "run", "run", "check")]

    assert [code for code, _, _ in results] == [0, 0, 0, 0]
    assert "1 image to copy" in results[0][2]
    assert "web: 3 copied, 0 in place, 0 failed" in results[1][2]
    assert "web: 0 copied, 3 in place, 0 failed; 0 B sent" in results[2][2]
    assert object_store.head(s3_location) is not None


@pytest.mark.parametrize("verb", ["plan", "run", "check"])
def test_rules_that_take_nothing_are_warned_of(file: File, verb: str) -> None:
    file.path.write_text(file.path.read_text() + "    tags: [{semver: ['9.x']}]\n")

    code, _, err = mirror(verb, file)

    assert code == 0
    assert f"web: nothing of {file.source} is mirrored: its rules take none of the 3 tags that are there" in err


def test_a_plan_shows_what_can_be_planned_and_what_can_not(file: File) -> None:
    file.add("lost", f"{file.source}-lost")
    file.add("app", file.source)

    code, out, err = mirror("plan", file)

    assert code == 3
    assert {line.split("\t")[0] for line in out.splitlines()} == {"web", "app"}
    assert "NAME_UNKNOWN" in err
    assert "app: 3 images to copy" in err


def test_a_mirror_that_can_not_be_checked_does_not_keep_others_from_it(file: File) -> None:
    file.add("lost", f"{file.source}-lost")
    file.add("app", file.source)

    code, _, err = mirror("check", file)

    assert code == 3
    assert "app: 0 in place, 3 missing" in err
    assert "1 comparison failed" in err


def test_only_what_no_mirror_has_is_refused(file: File, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("registry.example/other:1.0\n")

    code, _, err = mirror("run", file, "--only", str(names))

    assert code == 2
    assert "none of these mirrors has registry.example/other:1.0" in err


def test_a_plan_says_why_each_tag_is_taken_or_not(file: File, tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    file.mirrors[0] += "    tags: [{latest: 1}]\n"
    file.write()

    code, out, _ = mirror("plan", file, "--why", "--output", str(target))

    why = {one["tag"]: one for one in json.loads(target.read_text())["mirrors"][0]["why"]}
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert {tag: (one["taken"], one["rule"]) for tag, one in why.items()} == {
        "1.0": (False, 0),
        "1.1": (True, 1),
        "latest": (False, 0),
    }
    assert ["web", "1.0", "no", "-", why["1.0"]["reason"]] in [row[:5] for row in rows]


def test_a_plan_says_why_so_few_tags_are_taken(file: File, tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    file.mirrors[0] += "    tags: [{semver: [^9]}]\n    min_tags: 1\n"
    file.write()

    code, out, err = mirror("plan", file, "--why", "--output", str(target))

    assert code == 1
    assert "min_tags" in err
    why = json.loads(target.read_text())["mirrors"][0]["why"]
    assert {one["tag"]: one["taken"] for one in why} == {"1.0": False, "1.1": False, "latest": False}
    assert "semver" in out


def test_a_file_is_validated_without_a_network(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    places = "source: {repository: nowhere.invalid/web}, destinations: [{repository: other.invalid/web}]"
    path.write_text(f"version: 1\nmirrors: [{{name: web, {places}, schedule: {{cron: '0 3 * * *'}}}}]\n")

    done = transship("mirror", "validate", "-f", str(path))

    assert done.code == 0, done.err
    assert done.out.split("\t")[:3] == ["web", "nowhere.invalid/web", "other.invalid/web"]

    path.write_text(f"version: 1\nmirrors:\n  - {{name: web, {places}, schedule: {{cron: '99 3 * * *'}}}}\n")
    done = transship("mirror", "validate", "-f", str(path))

    assert done.code == ExitCode.USAGE
    assert f"{path}:3: mirrors[0].schedule.cron" in done.err


@pytest.mark.parametrize(
    "words", [("mirror", "run", "-f"), ("mirror", "check", "-f"), ("mirror", "plan", "-f"), ("auth", "check")], ids=str
)
def test_a_file_without_mirrors_is_nothing_to_do(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "mirrors.yaml"
    file.write_text("version: 1\nmirrors: []\n")

    done = transship(*words, str(file))

    assert done.code == ExitCode.DONE, done.err


def test_a_check_that_is_refused_says_the_cause_once_with_its_kind(
    registry: DockerRegistry, other_registry: DockerRegistry, repository: str, tmp_path: Path
) -> None:
    seed(registry, repository, versions("1.0", "1.1"))
    with FaultProxy(other_registry.port, Fault(status=401)) as refusing:
        file = File(tmp_path, registry, other_registry, repository)
        file.path.write_text(file.path.read_text().replace(other_registry.host, refusing.host))
        code, out, err = mirror("check", file, "--json")

    document = json.loads(out)
    assert code == ExitCode.FAILED
    assert err.count("asked as anonymous") == 1
    assert [failure["Kind"] for failure in document["Error"]["Failures"]] == ["Unauthorized"]
    assert [failure["Store"] for failure in document["Error"]["Failures"]] == [refusing.host]
    assert {tag["state"] for tag in document["Result"]["mirrors"][0]["destinations"][0]["drift"]} == {"failed"}


def test_a_flag_that_the_file_overrules_for_a_registry_is_named(file: File) -> None:
    host = file.source.partition("/")[0]
    file.path.write_text(f"{file.path.read_text()}registries: {{'{host}': {{retries: 3, verify_tls: true}}}}\n")

    _, _, err = mirror("plan", file, "--registry-retry-count", "2", "--registry-verify-certs=false")
    same = mirror("plan", file, "--registry-retry-count", "3")

    assert [line for line in err.splitlines() if line.startswith("Warning:")] == [
        f"Warning: --registry-verify-certs isn't used for {host}: `registries` says its verify_tls",
        f"Warning: --registry-retry-count isn't used for {host}: `registries` says its retries",
    ]
    assert "Warning:" not in same[2]


def test_a_mirror_that_can_not_be_compared_is_in_the_document_with_its_cause(file: File) -> None:
    file.add("nowhere", "127.0.0.1:1/no/where")

    code, out, err = mirror("check", file, "--json", "--registry-retry-count", "0")

    compared = {each["mirror"]: each for each in json.loads(out)["Result"]["mirrors"]}
    assert code == ExitCode.PARTLY
    assert "Connection refused" in compared["nowhere"]["destinations"][0]["error"]
    assert not compared["nowhere"]["drifted"]
    assert compared["web"]["drifted"]
    assert "nowhere: couldn't be compared" in json.loads(out)["Lines"][1]
    assert err.count("Connection refused") == 1


@pytest.mark.parametrize(("flag", "said"), [("--no-state", True), ("--state", False)])
def test_ages_that_no_run_can_remember_are_said(file: File, tmp_path: Path, flag: str, said: bool) -> None:
    file.path.write_text(file.path.read_text().replace("defaults: {", "defaults: {tags: [{minimum_age: 1h}], "))
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    done = transship("mirror", "plan", "-f", str(file.path), flag, environ=environ)
    (tmp_path / "file").write_text("")
    full = transship("mirror", "plan", "-f", str(file.path), environ={"XDG_CACHE_HOME": str(tmp_path / "file")})

    assert (AGES_UNKNOWN in done.err) is said
    assert AGES_UNKNOWN in full.err
