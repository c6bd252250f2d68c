from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import msgspec
import pytest

from oci.relocation.report import ImageTraffic
from tasks.artifacts.history import MOST_RUNS, PastRun, runs_picture
from tasks.artifacts.markdown import NO_BREAK
from tasks.artifacts.picture import LONGEST, bytes_picture, embedded, in_words

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def words(svg: str) -> list[str]:
    return [str(one.text) for one in drawn(svg).iter(f"{SVG}text")]


def tips(svg: str) -> list[str]:
    return [
        str(box.findtext(f"{SVG}title")) for box in drawn(svg).iter(f"{SVG}rect") if box.find(f"{SVG}title") is not None
    ]


def widths(svg: str, tip: str) -> list[float]:
    return [float(box.attrib["width"]) for box in drawn(svg).iter(f"{SVG}rect") if box.findtext(f"{SVG}title") == tip]


def test_bytes_are_drawn_by_outcome_and_in_proportion() -> None:
    total = traffic("", written=3 << 20, mounted=1 << 20, failed=4 << 20)

    svg = bytes_picture(total, [])

    assert words(svg) == ["written 3.0 MiB", "mounted 1.0 MiB", "failed 4.0 MiB"]
    [written], [failed] = widths(svg, "written: 3.0 MiB"), widths(svg, "failed: 4.0 MiB")
    assert written / failed == pytest.approx(3 / 4, abs=0.01)


def test_the_biggest_image_comes_first_with_its_bytes_and_seconds() -> None:
    bars = [traffic("small@sha256:1", written=10, seconds=0.1), traffic("big@sha256:2", skipped=2048, seconds=2)]

    assert words(bytes_picture(traffic("", written=10, skipped=2048), bars))[2:] == [
        "big@sha256:2",
        "2.0 KiB in 2.0 s",
        "small@sha256:1",
        "10 B in 0.1 s",
    ]


def test_an_image_that_failed_says_so_instead_of_its_seconds() -> None:
    assert "1.0 KiB, failed" in words(bytes_picture(traffic("", failed=1024), [traffic("web", failed=1024)]))


def test_a_thousand_images_are_a_few_kilobytes_and_all_are_accounted_for() -> None:
    bars = [traffic(f"registry.example/a/long/name/of/an/image-{n}", written=n + 1, seconds=1) for n in range(1000)]

    svg = bytes_picture(traffic("", written=500_500), bars, more=5)

    assert len(svg) < 8_000
    assert f"and {1005 - LONGEST} more" in words(svg)
    assert "image-999" in svg


@pytest.mark.parametrize("name", ['</text><script>alert("x")</script>', "a&b", "nul\x00 and \x1b[31m", "\ud800", '"'])
def test_a_hostile_name_stays_text(name: str) -> None:
    svg = bytes_picture(traffic("", written=1), [traffic(name, written=1)])

    assert {one.tag.removeprefix(SVG) for one in drawn(svg).iter()} == {"svg", "title", "rect", "text"}
    embedded(svg, name)


def test_markdown_carries_the_picture_and_says_it_in_words() -> None:
    svg = bytes_picture(traffic("", written=1), [])

    page = embedded(svg, "Bytes [x](http://evil.example) `by` outcome")

    found = re.fullmatch(r"!\[([^\]]*)\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", page)
    assert found is not None
    assert found[1] == "Bytes x(http://evil.example) by outcome"
    assert base64.b64decode(found[2]).decode() == svg


def test_only_outcomes_that_have_bytes_are_named() -> None:
    assert in_words(traffic("", written=1024, skipped=1)) == "1.0 KiB written, 1 B skipped"
    assert in_words(traffic("")) == "no bytes"


def traffic(image: str, **sizes: float) -> ImageTraffic:
    return msgspec.convert({"image": image, **sizes}, ImageTraffic)


def past(day: int, sent: int, *, succeeded: bool = True) -> PastRun:
    return PastRun(ended=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=day), sent=sent, succeeded=succeeded)


def test_runs_stand_side_by_side_oldest_first_and_failures_are_marked() -> None:
    runs = [past(1, 100), past(2, 0, succeeded=False), past(3, 50)]

    svg = runs_picture(runs)

    days = [run.when.replace(NO_BREAK, " ") for run in runs]
    assert tips(svg) == [f"{days[0]}: 100 B", f"{days[1]}: 0 B, failed", f"{days[2]}: 50 B"]
    assert words(svg) == ["sent by each of the last 3 runs, at most 100 B", "x"]


def test_only_the_last_runs_are_drawn_and_none_is_fine_too() -> None:
    assert len(tips(runs_picture([past(day, day) for day in range(500)]))) == MOST_RUNS
    assert tips(runs_picture([])) == []
