"""References as people, locks and archives write them."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from collections.abc import Iterator

from oci.errors import InvalidReference
from tests.hostile.case import ACCEPTED, Case, given

DIGEST = "sha256:" + "a" * 64
REFUSED = (
    "", " ", "/", "//", ":", "@", "a:", "a@", "a:b:c", "a b", "a\tb", "a\nb", "a\x00b", "a\x1b[2J", "A", "registry.example/A", "registry.example/",
    "registry.example//a", "registry.example/ab/", "registry.example/../a", "registry.example/./a", "registry.example/ab/../b", "registry.example/ab%2e",
    "registry.example/ab?x", "registry.example/ab#x", "registry.example/ab\\b", "registry.example/ab:.x", "registry.example/ab:-x", "registry.example/ab:x/y",
    f"registry.example/ab:{'t' * 129}", f"registry.example/{'a' * 256}", "registry.example/ab@sha256:beef", f"registry.example/ab@{DIGEST}0",
    f"registry.example/ab@sha256:{'A' * 64}", f"registry.example/ab@@{DIGEST}", "http://registry.example/ab", "https://registry.example/ab:1",
    "user@registry.example/ab", "user:secret@registry.example/ab:1", "registry.example:/a", "registry.example:0x50/a", "registry.example:99999/a",
    "[::1]/", "[::1/a", "[::1%eth0]/a", "\uff41.example/ab\uff41", "registry.example/ü",
    "oci:/tmp/a\0b:1", "oci:/tmp/\ud800", f"archive:/tmp/a%00b@{DIGEST}", "registry.example/ab:\uff11.\u0661", "registry.example/\u0430b", "registry.example/ab\u2215c", "registry.example/a\u200bb",
    "registry.example/ab@sha256:" + "\u0661" * 64, f"registry.example/ab@{DIGEST}\n\n", "registry\uff0eexample/ab", "registry.example:\uff15000/ab", "[::1%25lo]/ab",
    "a" * 100_000, "a/" * 50_000, "@" * 10_000, ":" * 10_000,
)  # fmt: skip
TAKEN = (
    "ab", "a", "a:1", f"a@{DIGEST}", f"a:1@{DIGEST}", "a/b", "registry.example/ab", "registry.example:5000/ab/b/c:1.0", "localhost/ab", "localhost:5000/ab", "127.0.0.1:5000/ab",
    # Such hosts pass the grammar of go-containerregistry, and are refused when they are looked up.
    f"{'l' * 64}.example/ab", f"{'l.' * 130}example/ab", "-a.example/ab", "a..example/ab",
    "[::1]:5000/ab", "registry.example/a__b", "registry.example/a-b.c", f"registry.example/ab:{'t' * 128}", "REGISTRY.EXAMPLE/ab",
)  # fmt: skip


def cases() -> Iterator[Case[str]]:
    for text in REFUSED:
        yield Case(f"{text[:60]!r} ({len(text)})", given(text), InvalidReference)
    for text in TAKEN:
        yield Case(f"{text[:60]!r} ({len(text)})", given(text), ACCEPTED)
