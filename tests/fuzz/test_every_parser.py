"""No parser is left out: what `oci` makes of the bytes of a stranger goes through the corpus, fuzzing and growth."""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import oci
from tests.fuzz.parsers import PARSERS, Parser

ROOT = Path(oci.__file__).parent
MAKES_SENSE_OF_BYTES = frozenset(
    {
        *("parse_json", "compose", "convert", "safe_load", "from_json", "decompressobj", "unpack_from", "from_bytes"),
        *("b64decode", "urlsafe_b64decode", "fromisoformat", "parsedate_to_datetime", "urlsplit"),
        *("load_der_x509_certificate", "load_pem_x509_certificates", "load_pem_public_key", "load_pem_private_key"),
    }
)
NAMED = ("parse", "parse_", "from_json", "from_yaml", "from_dict")
"""A function is a parser when it calls one of the first, or has such a name."""

OPERATORS = "what the person who runs it has written, or a program of theirs"
OWN = "what this program has written itself in the same run"
FORGED = "JSON alone, and tests of its room forge it"
STORM = "a row of the storm sends it untrue, and another without an end"
WITHIN = "what another parser, or the registry client, has read already"
LEFT_OUT: Mapping[str, str] = {
    "archive/index.py:_note": WITHIN,
    "archive/s3.py:S3.__init__": OPERATORS,
    "archive/s3.py:S3._count": OWN,
    "archive/index.py:TransshipJson.to_json": OWN,
    "documents/recurrence.py:anchor": OWN,
    "export/file_writer.py:FileWriter._read_journal": FORGED,
    "export/s3_writer.py:S3Writer._noted": FORGED,
    "export/s3_writer.py:S3Writer.join": FORGED,
    "files/deflate.py:_end_of_copy": OWN,
    "files/deflate.py:_words": OWN,
    "meter.py:push": OPERATORS,
    "mirror/run_state.py:_created": WITHIN,
    "platforms.py:_rewrite": WITHIN,
    "prune/plan.py:PrunePlan.to_dict": OWN,
    "registry/credentials/config_files.py:ConfigFile.parse": OPERATORS,
    "registry/credentials/config_files.py:_decoded": OPERATORS,
    "registry/credentials/keychains.py:amazon_login": OPERATORS,
    "registry/credentials/keychains.py:_of_gcloud": OPERATORS,
    "registry/credentials/config_files.py:HelperProgram._credential": OPERATORS,
    "registry/http/answer.py:_inflated": STORM,
    "registry/http/connections.py:parse_proxy": OPERATORS,
    "registry/referrers.py:add_to_fallback": WITHIN,
    "signatures/keys.py:_opened": OPERATORS,
    "signatures/keys.py:read_signing_key": OPERATORS,
    "signatures/notation.py:_certificates": OPERATORS,
}


def parsers() -> Iterator[str]:
    for path in sorted(ROOT.rglob("*.py")):
        for name, node in functions(ast.parse(path.read_text()), ""):
            calls = {
                call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
            }
            if calls & MAKES_SENSE_OF_BYTES or node.name in NAMED or node.name.startswith("parse_"):
                yield f"{path.relative_to(ROOT)}:{name}"


def functions(body: ast.AST, within: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Those of a module and of its classes, with the names that their code has."""
    for node in ast.iter_child_nodes(body):
        if isinstance(node, ast.FunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")


def reached(every: Mapping[str, Parser]) -> set[str]:
    names: set[str] = set()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        del arg
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            names.add(f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_code.co_qualname}")

    gc.unfreeze()  # get_objects leaves out what conftest.py has frozen
    for kept in gc.get_objects():  # what was parsed before isn't parsed again
        if isinstance(kept, functools._lru_cache_wrapper) and str(kept.__module__).startswith(("oci.", "tests.fuzz.")):
            kept.cache_clear()
    gc.freeze()
    for parser in every.values():
        for honest in parser.honest:
            sys.setprofile(note)
            try:
                with contextlib.suppress(*parser.own):
                    parser.parse(honest)
            finally:
                sys.setprofile(None)
    return names


def test_every_parser_is_fuzzed_and_measured_or_says_why_not() -> None:
    """A new parser needs a line in tests/fuzz/parsers.py, which the corpus, fuzzing and growth all go through."""
    every, met = set(parsers()), reached(PARSERS)

    assert every - met - set(LEFT_OUT) == set()
    assert set(LEFT_OUT) - every == set()
    assert set(LEFT_OUT) & met == set()


def test_a_parser_without_its_line_is_missed() -> None:
    """So that the test above can fail."""
    without = {name: parser for name, parser in PARSERS.items() if name != "quotas"}

    assert "registry/http/errors.py:remaining_pulls" in reached(PARSERS) - reached(without)
