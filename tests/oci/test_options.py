"""How options are declared: what a declaration says, what it accepts, how it answers mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from oci.errors import InvalidInput, did_you_mean
from oci.options import Options, fields_of, option, required
from oci.registry.options import RegistryOptions
from oci.relocation.request import CopyOptions


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Options):
    """Something inside."""

    age: timedelta = option(timedelta(), "How old.")


class Sample(Options):
    """A sample."""

    name: str = required("Whose.", min_length=1, max_length=5)
    size: int = option(16 << 20, unit="bytes", ge=5)
    wait: float = option(30.0, unit="seconds", le=600, flag="--wait-for", group="advanced")
    words: tuple[Annotated[str, msgspec.Meta(max_length=3)], ...] = option((), max_length=2)
    colours: frozenset[Colour] = option(frozenset())
    mode: Literal["a", "b"] = option("a", short="-m")
    labels: dict[str, str] = option({})
    password: str = option("", secret=True)
    inner: Inner = option(Inner())
    maybe: Inner | None = option(None)

    def __post_init__(self) -> None:
        if self.name == "no":
            raise InvalidInput("name: not this name")


def test_a_declaration_says_everything() -> None:
    fields = {field.name: field for field in fields_of(Sample)}

    assert list(fields) == list(Sample.__struct_fields__)
    assert fields["name"].required
    assert (fields["name"].title, fields["name"].help, fields["name"].flag) == ("Name", "Whose.", "--name")
    assert (fields["wait"].flag, fields["wait"].group, fields["wait"].unit, fields["wait"].le) == (
        "--wait-for",
        "advanced",
        "seconds",
        600,
    )
    assert fields["mode"].choices == ("a", "b")
    assert fields["colours"].choices == ("red", "blue")
    assert fields["colours"].is_list
    assert fields["labels"].is_mapping
    assert fields["labels"].default == {}
    assert fields["maybe"].options is Inner


def test_a_value_comes_from_text_and_goes_back() -> None:
    given = {
        "name": "x",
        "size": "4MiB",
        "wait": "1m",
        "words": ["a", "b"],
        "colours": ["red"],
        "mode": "b",
        "labels": {"k": "v"},
        "inner": {"age": "1d"},
        "maybe": {"age": "2d"},
    }

    sample = Sample.make(given)

    assert sample.size == 4 << 20
    assert sample.wait == 60.0
    assert sample.words == ("a", "b")
    assert sample.colours == frozenset({Colour.RED})
    assert sample.inner.age == timedelta(days=1)
    assert sample.to_dict() == given
    assert Sample.make(sample.to_dict()) == sample
    assert Sample(name="x").to_dict() == {"name": "x"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "name: expected a value"),
        ({"name": ""}, "name: expected text of length >= 1"),
        ({"name": 1}, "name: expected text, got a whole number"),
        ({"name": "x", "size": "4"}, "size: expected a whole number >= 5"),
        ({"name": "x", "size": "much"}, "size: invalid size"),
        ({"name": "x", "wait": "601s"}, "wait: expected a number <= 600"),
        ({"name": "x", "wait": "7 days"}, "wait: '7 days' is no length of time"),
        ({"name": "x", "words": "a"}, "words: expected a list, got text"),
        ({"name": "x", "words": ["a", "long"]}, "words: 'long': expected text of length <= 3"),
        ({"name": "x", "words": ["a", "b", "c"]}, "words: expected a list of length <= 2"),
        ({"name": "x", "colours": ["green"]}, "colours: "),
        ({"name": "x", "mode": "c"}, "mode: "),
        ({"name": "x", "inner": {"age": "soon"}}, "inner.age: 'soon' is no length of time"),
        ({"name": "x", "inner": {"agee": "1d"}}, "inner.agee: unknown option"),
        ({"name": "x", "inner": 3}, "inner: expected a mapping"),
        ({"name": "no"}, "name: not this name"),
    ],
)
def test_a_mistake_is_named_by_its_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Sample.make(given)
    assert caught.value.message.startswith(message)


def test_a_misspelled_name_is_recognised() -> None:
    with pytest.raises(InvalidInput) as caught:
        Sample.make({"nmae": "x"})
    assert caught.value.message == "nmae: unknown option"
    assert caught.value.hint == "did you mean name?"
    assert did_you_mean("zzz", ["b", "a"]) == "known are a, b"


def test_a_secret_is_in_no_repr_and_in_no_dict() -> None:
    sample = Sample(name="x", password="hunter2")

    assert "hunter2" not in repr(sample)
    assert "hunter2" not in str(sample.to_dict())


def test_a_field_without_a_declaration_is_refused() -> None:
    class Bad(Options):
        plain: int = 0

    with pytest.raises(TypeError, match=r"Bad\.plain"):
        fields_of(Bad)


def test_the_schema_is_that_of_what_people_write() -> None:
    described = Sample.form()

    properties = described["properties"]
    assert described["additionalProperties"] is False
    assert described["required"] == ["name"]
    assert properties["size"]["type"] == "string"
    assert properties["size"]["default"] == "16MiB"
    assert properties["wait"]["default"] == "30s"
    assert properties["colours"] == {
        "title": "Colours",
        "type": "array",
        "items": {"type": "string", "enum": ["red", "blue"]},
        "uniqueItems": True,
        "default": [],
        "position": 0,
    }
    assert properties["words"]["maxItems"] == 2
    assert properties["inner"]["properties"]["age"]["type"] == "string"
    assert properties["maybe"]["anyOf"][1] == {"type": "null"}
    assert "password" not in properties


def test_every_declaration_of_a_registry_has_a_title_and_a_help() -> None:
    for field in fields_of(RegistryOptions):
        assert field.title
        assert field.help.endswith(".")


def test_types_of_declarations_are_read_when_they_are_asked_for() -> None:
    code = (
        "import oci.options, sys; calls = []; old = oci.options._described\n"
        "oci.options._described = lambda *a: calls.append(a) or old(*a)\n"
        "import oci.prune.policy as k; print(len(calls), 'pydantic' in sys.modules)\n"
        "oci.options.fields_of(k.Keep); print(len(calls) >= len(k.Keep.__struct_fields__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False", "True"]


@pytest.mark.parametrize("value", [{"tags": ["v1\n"]}, {"platforms": ["linux/amd64\n"]}], ids=str)
def test_a_line_break_at_the_end_of_an_item_is_refused_and_no_schema_has_words_of_python(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        CopyOptions.make(value)
    assert r"\\Z" not in json.dumps(CopyOptions.form())
