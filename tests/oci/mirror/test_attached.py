"""What is attached to mirrored images: what comes late, what was removed, and what looking for it costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from oci.errors import InvalidInput
from oci.meter import Receipt
from oci.mirror.comparison import TagState
from oci.mirror.policy import Policy
from oci.mirror.reader import make, parse_config
from oci.mirror.results import DriftReport
from oci.mirror.run_state import DigestCache
from oci.signatures.artifacts import ArtifactSelection
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.attaching import Signed, lost_at, push_signed, signed_index
from tests.support.content import artifact, image, push, signature_tag
from tests.support.mirroring import AUDIT, CHECK, compared, many, mirror_of, run, states

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.mark.parametrize("api", [True, False], ids=["API", "tags"])
def test_a_mirror_takes_everything_unless_it_is_told_otherwise(api: bool) -> None:
    signed = signed_index(21)
    with StrictRegistry(Features(referrers=api)) as source, StrictRegistry(Features(referrers=api)) as destination:
        push_signed(source.url, "shop/web", signed, "1.0", api=api)
        where = f"{source.host}/shop/web"
        assert run(mirror_of(where, f"{destination.host}/mirror/web")).succeeded
        assert run(mirror_of(where, f"{destination.host}/mirror/bare", artifacts="none")).succeeded

        assert lost_at(destination.url, "mirror/web", signed, api=api) == []
        assert httpx.get(f"{destination.url}/v2/mirror/bare/tags/list").json()["tags"] == ["1.0"]


@pytest.mark.parametrize("immutable", [[], [".*"]], ids=["tags that move", "immutable tags"])
@pytest.mark.parametrize("api", [True, False], ids=["API", "tags"])
def test_a_late_referrer_arrives_when_referrers_are_asked_for_again(
    tmp_path: Path, api: bool, immutable: list[str]
) -> None:
    signed = signed_index(22)
    signed = Signed(signed.root, {}, {signed.root.digest: signed.referrers[signed.root.digest]})
    facts = DigestCache(str(tmp_path / "facts.json"))
    with StrictRegistry(Features(referrers=api)) as source, StrictRegistry(Features(referrers=api)) as destination:
        push(source.url, "shop/web", signed.root, "1.0")
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/mirror/web", immutable=immutable)
        run(mirror, facts=facts, now=NOON)
        push_signed(source.url, "shop/web", signed, "1.0", api=api)

        before = run(mirror, facts=facts, now=NOON + timedelta(hours=1))
        due = run(mirror, facts=facts, now=NOON + DAY)
        after = run(mirror, facts=facts, now=NOON + DAY + timedelta(hours=1))

        assert (before.copied, due.copied, after.copied) == (0, 1, 0)
        assert lost_at(destination.url, "mirror/web", signed, api=api) == []


def test_a_second_signature_under_the_same_tag_arrives(tmp_path: Path) -> None:
    content, first, second = image(1), image(2), image(3)
    facts = DigestCache(str(tmp_path / "facts.json"))
    with StrictRegistry() as source, StrictRegistry() as destination:
        push(source.url, "shop/web", content, "1.0")
        push(source.url, "shop/web", first, signature_tag(content))
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/mirror/web")
        run(mirror, facts=facts, now=NOON)
        push(source.url, "shop/web", second, signature_tag(content))

        assert run(mirror, facts=facts, now=NOON + DAY).copied == 1
        shown = httpx.get(f"{destination.url}/v2/mirror/web/manifests/{signature_tag(content)}")
        assert shown.content == second.raw


def test_an_event_asks_for_referrers_at_once() -> None:
    content = image(1)
    with StrictRegistry() as source, StrictRegistry() as destination:
        push(source.url, "shop/web", content, "1.0")
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/mirror/web")
        run(mirror)
        late = artifact(1, subject=content)
        push(source.url, "shop/web", late)

        report = run(mirror, scope={"only": frozenset({f"{source.host}/shop/web:1.0"})})

        assert report.copied == 1
        assert httpx.head(f"{destination.url}/v2/mirror/web/manifests/{late.digest}").status_code == 200


def test_what_was_removed_at_the_source_is_reported_and_stays() -> None:
    content = image(1)
    sbom = artifact(1, subject=content)
    with StrictRegistry() as source, StrictRegistry() as destination:
        push(source.url, "shop/web", content, "1.0")
        push(source.url, "shop/web", sbom)
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/mirror/web")
        run(mirror)
        httpx.delete(f"{source.url}/v2/shop/web/manifests/{sbom.digest}").raise_for_status()

        checked = compared(mirror, scope=CHECK)
        again = run(mirror, scope=AUDIT)

        assert states(checked) == {"1.0": TagState.MORE_THERE.value}
        assert sbom.digest in checked.destinations[0].tags[0].reason
        assert not checked.drifted
        assert not DriftReport.of(checked, Receipt(), None).drifted
        assert (again.copied, again.in_place) == (0, 1)
        assert httpx.head(f"{destination.url}/v2/mirror/web/manifests/{sbom.digest}").status_code == 200


def test_a_check_knows_what_is_unsigned_here() -> None:
    content = image(1)
    with StrictRegistry() as source, StrictRegistry() as destination:
        push(source.url, "shop/web", content, "1.0")
        mirror = mirror_of(f"{source.host}/shop/web", f"{destination.host}/mirror/web")
        run(mirror)
        push(source.url, "shop/web", image(2), signature_tag(content))

        checked = compared(mirror, scope=CHECK)

        assert states(checked) == {"1.0": TagState.UNSIGNED_HERE.value}
        assert checked.drifted


@pytest.mark.parametrize("api", [True, False], ids=["API", "tags"])
@pytest.mark.parametrize("names", [False, True], ids=["rules", "plain names"])
def test_a_day_of_unchanged_runs_costs_five_percent_more_at_most(tmp_path: Path, api: bool, names: bool) -> None:
    contents = many(12)
    with StrictRegistry(Features(referrers=api)) as source, StrictRegistry(Features(referrers=api)) as destination:
        for tag, content in contents.items():
            push(source.url, "shop/web", content, tag)
        spent = {}
        rules = {"tags": [{"allow": sorted(contents)}]} if names else {}
        for artifacts in ("none", "all"):
            facts = DigestCache(str(tmp_path / f"{artifacts}.json"))
            mirror = mirror_of(
                f"{source.host}/shop/web", f"{destination.host}/mirror/{artifacts}", artifacts=artifacts, **rules
            )
            run(mirror, facts=facts, now=NOON)
            hours = [run(mirror, facts=facts, now=NOON + timedelta(hours=hour)) for hour in range(1, 25)]
            assert all(report.succeeded and not report.copied for report in hours)
            spent[artifacts] = sum(report.receipt.total_requests for report in hours)

        assert spent["none"] >= 24 * 24
        # Of twelve tags a list weighs more than of a thousand: one list a side and due hour is left out of account.
        lists = 2 * 24 if names else 0
        assert spent["all"] <= spent["none"] * 1.05 + lists


@pytest.mark.parametrize("status", [401, 403])
def test_referrers_that_a_registry_refuses_to_list_are_a_failure_and_not_none(
    registry: DockerRegistry, repository: str, status: int
) -> None:
    from tests.faults.proxy import Fault, FaultProxy

    content = image(1)
    push(registry.url, repository, content, "1.0")
    refused = Fault(path="/referrers/", status=status), Fault(path=f"manifests/sha256-{content.hex}", status=status)
    with (
        FaultProxy(registry.port, *refused, Fault(path="tags/list", status=status)) as proxy,
        StrictRegistry() as destination,
    ):
        where = f"{proxy.host}/{repository}", f"{destination.host}/mirror/web"
        report = run(mirror_of(*where, tags=[{"allow": ["1.0"]}]))

    assert report.copied == 0
    assert "referrers of" in report.failed[0].error


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("all", ("all",)),
        ("none", ("none",)),
        ("[cosign]", ("cosign",)),
        ("{include: [cosign, referrers], exclude: [sbom]}", ("cosign", "referrers", "!sbom")),
        ("{exclude: [application/spdx+json]}", ("!application/spdx+json",)),
    ],
)
def test_artifacts_are_written_as_a_word_a_list_or_what_to_include(written: str, words: tuple[str, ...]) -> None:
    text = f"version: 1\ndefaults: {{artifacts: {written}}}\n"

    assert parse_config(text.encode(), "mirrors.yaml").defaults.artifacts == words
    assert make(Policy, {"artifacts": words}).artifacts == words


@pytest.mark.parametrize(
    "written",
    ["[]", "''", "{}", "{include: []}", "[none, sig]", "[all, none]", "['!none']", "['!']", "[Sig]", "['!!sig']"],
)
def test_artifacts_that_could_mean_two_things_are_refused(written: str) -> None:
    with pytest.raises(InvalidInput, match="artifacts"):
        parse_config(f"version: 1\ndefaults: {{artifacts: {written}}}\n".encode(), "mirrors.yaml")


def test_capitals_do_not_count_in_an_artifact_type() -> None:
    selection = ArtifactSelection(["Application/SPDX+json", "!application/vnd.Example.*"])

    assert selection.referrer("application/spdx+JSON")
    assert not selection.referrer("Application/vnd.example.sbom")
