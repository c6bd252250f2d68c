"""Pins the images of other people by digest: renews the digests, or with --check says which tags have moved.

    python deployments/pins.py [--check] [FILE...]

A digest is that of the index, so it is the same on every platform. An image whose registry can't be asked stays as it
is, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from oci.errors import TransshipError
from oci.library import Registry
from oci.reference import Reference, Repository

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "deployments/Dockerfile",
    "deployments/compose.yaml",
    "deployments/kubernetes/worker.yaml",
    ".github/workflows/ci.yml",
    ".github/workflows/next.yml",
)

IMAGE = re.compile(
    r"^(\s*(?:- )?(?:image|container): |FROM )([^\s@:]+(?::\d+/[^\s@:]+)?):([\w.-]+)(@sha256:[0-9a-f]{64})?",
    re.MULTILINE,
)
"""A line that names an image, with what stands before the name, its tag and its digest."""


def renewed(text: str, digest: Callable[[str, str], str]) -> str:
    """The text with a digest for each tag: what `digest` gives for NAME:TAG and the digest that stands there."""

    def line(found: re.Match[str]) -> str:
        before, name, tag, old = found.groups()
        return f"{before}{name}:{tag}{digest(f'{name}:{tag}', (old or '').removeprefix('@'))}"

    return IMAGE.sub(line, text)


def shown(reference: str) -> str:
    """The digest that a tag shows now. Raises a TransshipError."""
    name = Reference.parse(reference)
    repository = Repository.parse(str(name.repository))
    with Registry(repository.registry) as registry:
        return str(registry.repository(repository.path).get_manifest(name.tag).digest)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when a tag shows something else")
    parser.add_argument("files", nargs="*", default=[str(ROOT / name) for name in FILES])
    options = parser.parse_args(arguments)
    wrong: list[str] = []

    def digest(reference: str, old: str) -> str:
        try:
            new = shown(reference)
        except TransshipError as error:
            wrong.append(f"{reference}: {error}")
            return f"@{old}" if old else ""
        if options.check and new != old:
            wrong.append(f"{reference} shows {new}, and {old or 'no digest'} is pinned")
        return f"@{new}"

    for path in map(Path, options.files):
        before = path.read_text()
        after = renewed(before, digest)
        if after != before and not options.check:
            path.write_text(after)
            print(f"{path}: renewed")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
