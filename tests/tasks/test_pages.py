from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from msgspec import structs

from oci.bundle.describe import Content, DescribeReport
from oci.bundle.pull import PullReport
from oci.bundle.push import PushReport
from oci.errors import Incomplete, InvalidInput, StoreError, Unauthorized
from oci.meter import Receipt
from oci.relocation.plan import PlanFailure
from oci.relocation.report import (
    ImageFailure,
    RelocationIncomplete,
    RelocationReport,
    VerificationReport,
    VerifiedPlace,
)
from oci.relocation.request import RelocationRequest
from oci.relocation.transfer import DONE, FAILED, PRESENT, ImageOutcome
from oci.relocation.verify import Verification
from tasks.artifacts.markdown import in_forms, text, when
from tasks.artifacts.pages import describe_page, pull_page, push_page, relocation_page, step_of, verification_page
from tasks.artifacts.report import artifact_key
from tasks.relocate import RelocationRun, Resolution
from tasks.run import cancelled, failed, running
from tests.support.plans import digest, plan_of

SOURCE = "registry.example/shop/bundle:1.4.0"
REQUEST = RelocationRequest(bundle=SOURCE, to="corp.example/shop")


def report_after(steps: Callable[[RelocationRun], None]) -> RelocationReport:
    async def main() -> RelocationReport:
        async with running(RelocationRun(REQUEST)) as run:
            steps(run)
            return run.report()

    return asyncio.run(main())


def outcome(number: int, status: str, error: str = "") -> ImageOutcome:
    return ImageOutcome(digest=digest(number), subject=f"image {number}", role="r", status=status, error=error)


def test_it_counts_what_became_of_the_images_and_of_the_bytes() -> None:
    def steps(run: RelocationRun) -> None:
        run.source = Resolution(what="bundle", reference=SOURCE, pinned=SOURCE, digest=digest(9))
        run.relocation.outcomes = {digest(n): outcome(n, status) for n, status in enumerate([DONE, DONE, PRESENT])}
        run.meter.sent(3 << 20)
        run.meter.blob("written", 3 << 20)
        run.meter.blob("mounted", 2048)
        run.meter.request("corp.example", "POST upload")
        run.meter.identity("destination corp.example", "user bob (docker config)")
        run.meter.fallback("corp.example", "single POST refused (405), PUT used")

    report = report_after(steps)

    assert report.succeeded
    assert (report.images_copied, report.images_present) == (2, 1)
    assert (report.bytes.written, report.bytes.mounted) == (3 << 20, 2048)
    assert str(report).startswith("complete: 2 images copied, 1 already there; 3.0 MiB sent, 1 request, ")
    page = relocation_page(report)
    assert "2 copied, 1 already there" in page
    assert "3.0 MiB in 1 blob" in page
    assert "| Login at the destination | user bob (docker config), corp.example |" in page
    assert report.fallbacks == {"corp.example": ("single POST refused (405), PUT used",)}
    assert "| Learned at corp.example | single POST refused (405), PUT used |" in page
    assert "| corp.example | POST upload | 1 |" in page


def test_the_page_shows_the_biggest_images_drawn_and_in_words() -> None:
    def steps(run: RelocationRun) -> None:
        run.relocation.made_plan = plan_of([1000, 3000])
        moved = replace(outcome(0, DONE), subject="corp.example/a/web@sha256:0123456789abcdef", bytes_written=1000)
        run.relocation.outcomes = {digest(0): moved, digest(1): outcome(1, FAILED, "broke off")}
        run.meter.sent(1000)

    report = report_after(steps)

    assert report.bytes_failed == 3000
    assert [image.image for image in report.biggest] == ["image 1", "web@sha256:0123456789ab"]
    page = relocation_page(report)
    assert "![Bytes by outcome: 1000 B written, 2.9 KiB failed](data:image/svg+xml;base64," in page
    assert "| `web@sha256:0123456789ab` | 1000 B written | 0.0 |" in page


def test_where_no_byte_moved_there_is_no_picture() -> None:
    assert "data:image" not in relocation_page(RelocationReport(source="a", destination="b", images_present=3))


def test_the_report_of_a_thousand_images_stays_small() -> None:
    def steps(run: RelocationRun) -> None:
        run.relocation.outcomes = {digest(n): replace(outcome(n, DONE), bytes_written=n) for n in range(1000)}
        run.meter.sent(1)

    report = report_after(steps)

    assert len(json.dumps(report.to_dict())) < 4_000
    assert len(relocation_page(report)) < 20_000


def test_every_failure_is_listed_once_whatever_stage_it_is_from() -> None:
    def steps(run: RelocationRun) -> None:
        gone = PlanFailure(subject="web", message="gone", retryable=False)
        run.relocation.made_plan = structs.replace(plan_of([1, 1]), failures=(gone,))
        run.relocation.outcomes = {digest(0): outcome(0, DONE), digest(1): outcome(1, FAILED, "broke off")}
        run.relocation.error = Incomplete("2 of 3 images failed", [])

    report = report_after(steps)

    assert not report.succeeded
    assert [failure.error for failure in report.failures] == ["gone", "broke off"]
    assert "**2 failed; no name was moved.**" in relocation_page(report)


def test_what_ended_a_run_before_anything_was_planned_is_a_failure_too() -> None:
    def steps(run: RelocationRun) -> None:
        run.relocation.error = Unauthorized("login failed", side="source", store="registry.example", subject=SOURCE)

    assert report_after(steps).failures == [
        ImageFailure(image=SOURCE, error=f"source registry.example: {SOURCE}: login failed", retryable=False)
    ]


def test_problems_found_by_verifying_are_failures() -> None:
    def steps(run: RelocationRun) -> None:
        run.relocation.verification = Verification(manifests=3, problems=("blob missing", "manifest missing"))

    assert [failure.error for failure in report_after(steps).failures] == ["blob missing", "manifest missing"]


def test_a_time_is_two_lines_at_the_most() -> None:
    moment = when(datetime(2026, 11, 23, 2, 0, tzinfo=timezone(timedelta(hours=1))))

    assert moment.split(" ") == ["23\u00a0Nov\u00a02026", "01:00\u00a0UTC"]
    assert "-" not in moment
    assert when(None) == ""


def test_a_run_that_ended_early_says_what_ended_it() -> None:
    def steps(run: RelocationRun) -> None:
        run.relocation.outcomes = {digest(0): outcome(0, DONE)}
        run.relocation.error = cancelled()

    assert str(report_after(steps)).startswith(f"incomplete, {cancelled().message}: 1 image copied, ")


def test_a_next_step_says_once_that_it_is_to_be_tried_again() -> None:
    assert step_of("cut off", retryable=True) == "trying again may help"
    assert step_of("cut off (hint: look at the proxy)", retryable=True) == "look at the proxy; trying again may help"
    assert step_of("cut off (hint: run it again)", retryable=True) == "run it again"


def test_text_from_outside_does_not_break_the_page() -> None:
    report = RelocationReport(
        source="a", destination="b | c", failures=[ImageFailure(image="x", error="one\n```\n# two", retryable=True)]
    )

    page = relocation_page(report)

    assert "| Destination | `b \\| c` |" in page
    assert "- `x`: one \\`\\`\\` # two. **Next step:** trying again may help\n" in page
    assert "\n```\nx one ''' # two\n```\n" in page


@pytest.mark.parametrize(
    ("outside", "shown"),
    [
        ("[click](https://evil.example)", "\\[click\\](https:/\u200b/evil.example)"),
        ("![x](http://evil.example/pixel.png)", "!\\[x\\](http:/\u200b/evil.example/pixel.png)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("**bold** `code` a_b ~c~ & x", r"\*\*bold\*\* \`code\` a\_b \~c\~ \& x"),
        ("cell | cell\nline", r"cell \| cell line"),
        ("www.evil.example \x1b[31m", "www\u200b.evil.example  \\[31m"),
        ("WwW.evil.example HTTPS://evil", "WwW\u200b.evil.example HTTPS:/\u200b/evil"),
        ("mailto:a@evil.example", "mailto:a@\u200bevil.example"),
        ("web@sha256:beef", "web@sha256:beef"),
    ],
)
def test_text_from_outside_is_no_markdown(outside: str, shown: str) -> None:
    assert text(outside) == shown


def test_a_cause_that_ends_in_a_full_stop_gets_no_second() -> None:
    failure = ImageFailure(image="a/web:1", error="S3 said: please try again.", retryable=True)
    page = relocation_page(RelocationReport(source="a", destination="b", failures=[failure]))

    assert "S3 said: please try again. **Next step:**" in page


def test_a_failure_is_its_cause_and_its_next_step_and_its_details_stand_at_the_end_with_whole_digests() -> None:
    reference = f"registry.example/web@{digest(1)}"
    error = str(StoreError(f"GET of {digest(1)} failed", subject=reference, hint="look at the login"))
    failure = ImageFailure(image=reference, error=error, retryable=False)
    page = relocation_page(RelocationReport(source="a", destination="b", failures=[failure] * 300))

    short = digest(1)[:19]
    rows = [line for line in page.splitlines() if line.startswith(f"- `web@{short}`:")]
    assert len(rows) == 200
    assert rows[0].endswith(f"GET of {short}… failed. **Next step:** look at the login")
    assert "hint" not in rows[0]
    assert "and 100 more" in page
    details = page.partition("### Details")[2]
    assert reference in details.splitlines()[3]
    assert str(digest(1)) in error


def test_a_whole_digest_stands_in_a_block_which_scrolls_and_nowhere_else() -> None:
    """The newer UI draws what is wider than its column over what stands beside it."""
    image = f"registry.example/shop/web@{digest(1)}"
    content = Content(depth=0, kind="Image", image=image, origin=image)
    lost = VerifiedPlace(place="registry.example/shop/web", problems=[f"GET {image}: 404 (hint: copy it again)"])
    pages = (
        relocation_page(RelocationReport(source="a", destination="b", digest=str(digest(1)))),
        push_page(PushReport(reference=image, tag="v1", files=1, folders=0, size=1, receipt=Receipt())),
        pull_page(PullReport(image=image, folder="/srv/web")),
        describe_page(DescribeReport(digest=str(digest(1)), image=image, contents=[content], document="")),
        verification_page(VerificationReport(deep=False, places=[lost])),
    )

    for page in pages:
        outside, inside = page.split("```")[::2], page.split("```")[1::2]
        assert not [part for part in outside if str(digest(1)) in part]
        assert [part for part in inside if str(digest(1)) in part]
    assert "**Next step:** copy it again" in pages[-1]


def test_the_error_that_carries_a_report_survives_being_sent_to_another_process() -> None:
    report = RelocationReport(source="a", destination="b")
    error = RelocationIncomplete(report, Incomplete("1 of 2 images failed", [Unauthorized("no")], hint="log in"))

    copy = pickle.loads(pickle.dumps(error))

    assert copy.report == report
    assert str(copy) == str(error)


def test_artifact_keys_have_only_what_prefect_allows_and_are_the_same_for_every_run() -> None:
    assert artifact_key("relocation", "Corp.example:5000/a_b/c") == "relocation-corp-example-5000-a-b-c"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("keep them (--keep-bundle, --keep-lock)", 'keep them (the field "Bundles", the field "Locks")'),
        ("raise --max-unpacked-ratio if it is", 'raise the field "Largest ratio of unpacking" if it is'),
        ("run `copy --to-tar ... --sign KEY`",) * 2,
        ("permit it: --registry-insecure, `insecure` in a form",) * 2,
        ("raise --registry-manifest-limit (`manifest_limit` in forms)",) * 2,
        ("name it with --to-repo, which no form has",) * 2,
        ("name the key: --sign KEY", 'name the key: the field "Sign with"'),
        ("add --receipt FILE or --attach-receipt", 'add the field "Receipt" or the field "Attach the receipt"'),
        ("an archive: --platform linux/amd64", 'an archive: the field "Platforms" linux/amd64'),
    ],
)
def test_a_run_names_fields_where_a_command_has_flags(said: str, shown: str) -> None:
    assert in_forms(said) == shown


def test_the_next_step_and_the_state_of_a_run_name_fields() -> None:
    error = InvalidInput("it was lost", hint="copy it again with --repair")

    assert step_of(str(error), retryable=False) == 'copy it again with the field "Repair"'
    assert failed(error).message == 'it was lost (hint: copy it again with the field "Repair")'
