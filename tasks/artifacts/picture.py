"""What a run did, drawn: bytes by outcome, the images that weigh most, and a mirror's last runs side by side.

Both versions of the Prefect UI show an SVG that a markdown page carries in a data URI; SVG that stands in the page
itself they throw away. One is dark and the other light, so a picture brings a background of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from oci.relocation.report import ImageTraffic
from oci.units import show_size

LONGEST = 12
"""Images that are drawn, however many there are: a page stays some kilobytes."""

COLOURS = {"written": "#2a6fdb", "mounted": "#0f9d8a", "skipped": "#9aa3ad", "failed": "#c92a2a"}
_PAPER, _INK, FAINT = "#ffffff", "#1f2933", "#5f6b76"
_TRACK = "#eef1f4"
WIDTH = 690
"""The narrower UI shows no more."""
MARGIN = 16
_ROW = 22
_NAMES = 238
_VALUES = 126


def parts(traffic: ImageTraffic) -> Iterator[tuple[str, int]]:
    """Outcomes that have bytes."""
    for outcome in COLOURS:
        size = int(getattr(traffic, outcome))
        if size:
            yield outcome, size


def bytes_picture(total: ImageTraffic, images: Sequence[ImageTraffic], more: int = 0) -> str:
    """SVG: `total` as one bar with a legend, below it the biggest of `images` on a scale of their own. `more` images
    are mentioned only, besides those that there is no room for."""
    shown = sorted(images, key=lambda bar: -bar.total)[:LONGEST]
    more += len(images) - len(shown)
    lines = list(_stacked(total, MARGIN, 14, WIDTH - 2 * MARGIN, 20, whole=total.total))
    x = float(MARGIN)
    for outcome, size in parts(total):
        words = f"{outcome} {show_size(size)}"
        lines += [box(x, 44, 11, 11, COLOURS[outcome]), label(x + 17, 54, words)]
        x += 40 + 7.2 * len(words)
    y = 74
    for bar in shown:
        lines.extend(_image(bar, y, shown[0].total))
        y += _ROW
    if more:
        lines.append(label(MARGIN, y + 14, f"and {more} more", FAINT))
        y += _ROW
    return svg(y + MARGIN // 2, in_words(total), lines)


def embedded(svg: str, words: str) -> str:
    """Markdown that shows the picture, and `words` for readers who can't see it."""
    plain = "".join(sign for sign in words if sign not in "[]\\`<>")
    return f"![{plain}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def in_words(bar: ImageTraffic) -> str:
    """`18.6 MiB written, 2.0 MiB skipped`"""
    return ", ".join(f"{show_size(size)} {outcome}" for outcome, size in parts(bar)) or "no bytes"


def _image(bar: ImageTraffic, y: int, widest: int) -> Iterator[str]:
    start = MARGIN + _NAMES
    width = WIDTH - MARGIN - _VALUES - start
    yield label(MARGIN, y + 14, _shortened(bar.image))
    yield from _stacked(bar, start, y + 4, width, 13, whole=widest)
    pace = f"{show_size(bar.total)}, failed" if bar.failed else f"{show_size(bar.total)} in {bar.seconds:.1f} s"
    yield label(WIDTH - MARGIN, y + 14, pace, anchor="end")


def _stacked(bar: ImageTraffic, x: float, y: float, width: float, height: float, *, whole: int) -> Iterator[str]:
    yield box(x, y, width, height, _TRACK)
    for outcome, size in parts(bar):
        length = width * size / whole
        yield box(x, y, max(1.0, length - 1), height, COLOURS[outcome], tip=f"{outcome}: {show_size(size)}")
        x += length


def _shortened(name: str, signs: int = 29) -> str:
    """Shortens a name in the middle: images differ at the end of their names and at the beginning."""
    half = signs // 2
    return name if len(name) <= signs else f"{name[: half - 1]}…{name[-half:]}"


def svg(height: float, words: str, lines: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-family="Inter, Arial, sans-serif" font-size="12.5">'
    )
    paper = f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="{_PAPER}"/>'
    return "".join([head, f"<title>{_escaped(words)}</title>", paper, *lines, "</svg>"])


def box(x: float, y: float, width: float, height: float, colour: str, *, tip: str = "") -> str:
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{colour}"'
    return f"{shape}><title>{_escaped(tip)}</title></rect>" if tip else f"{shape}/>"


def label(x: float, y: float, words: str, colour: str = _INK, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{_escaped(words)}</text>'


def _escaped(words: str) -> str:
    """Escapes a name. Names come from outside, and a control character would make the whole picture invalid."""
    return escape("".join(sign if sign.isprintable() else "?" for sign in words))
