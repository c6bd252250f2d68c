"""Fuzzes one parser with atheris, by coverage: `python -m tests.fuzz NAME [libFuzzer options]`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = __import__("atheris")  # no dependency: `make fuzz-atheris` installs it

with atheris.instrument_imports(include=["oci"]):
    from tests.fuzz.parsers import OURS, PARSERS


def main() -> None:
    name, *options = sys.argv[1:]
    parser = PARSERS[name]

    def check(data: bytes) -> None:
        with contextlib.suppress(OURS, *parser.own):
            parser.parse(data)

    with tempfile.TemporaryDirectory() as corpus:
        for number, honest in enumerate(parser.honest):
            Path(corpus, str(number)).write_bytes(honest)
        atheris.Setup([sys.argv[0], *options, corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
