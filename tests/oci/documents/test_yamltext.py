from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.lockfile import SIZE_LIMIT, parse, render
from oci.documents.composer import ALIAS_LIMIT, VALUE_LIMIT, Composer
from oci.errors import InvalidDocument

SENTENCE = f"{'x' * 40} {'y' * 45} zzz"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        # What imgpkg writes for an annotation of this value.
        ("1.4.0", "1.4.0"),
        ("v1", "v1"),
        ("2.3", '"2.3"'),
        ("12", '"12"'),
        ("0x1F", '"0x1F"'),
        ("0b11", '"0b11"'),
        ("017", '"017"'),
        ("1_000", '"1_000"'),
        ("1e3", '"1e3"'),
        (".5", '".5"'),
        ("1e999", "1e999"),
        ("99999999999999999999", '"99999999999999999999"'),
        ("+.inf", '"+.inf"'),
        (".NaN", '".NaN"'),
        (".", "."),
        ("1:20", '"1:20"'),
        ("190:20:30.5", '"190:20:30.5"'),
        ("2024-02-29", '"2024-02-29"'),
        ("2024-02-30", "2024-02-30"),
        ("2001-12-14t21:59:43.1Z", '"2001-12-14t21:59:43.1Z"'),
        ("2001-12-14T25:59:43Z", "2001-12-14T25:59:43Z"),
        ("y", '"y"'),
        ("Off", '"Off"'),
        ("true", '"true"'),
        ("null", '"null"'),
        ("~", '"~"'),
        ("", '""'),
        ("<<", "<<"),
        ("- a", "'- a'"),
        ("--", "--"),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        (" lead", "' lead'"),
        ("trail ", "'trail '"),
        ("it's", "it's"),
        ("'q", "'''q'"),
        ("@at", "'@at'"),
        ("%a", "'%a'"),
        ("[x]", "'[x]'"),
        ("tab\there", '"tab\\there"'),
        ("caf\u00e9", "caf\u00e9"),
        ("\U0001f600", '"\\U0001F600"'),
        ("a\nb", "|-\n  a\n  b"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\n\n", "|+\n  a\n"),
        (" a\nb", "|2-\n   a\n  b"),
        ("a \nb", '"a \\nb"'),
        (SENTENCE, f"{'x' * 40} {'y' * 45}\n  zzz"),
    ],
)
def test_text_is_written_as_imgpkg_writes_it(text: str, written: str) -> None:
    assert render({"k": text}) == f"---\nk: {written}\n"
    assert parse(render({"k": text}), "w").value == {"k": text}


def test_keys_are_sorted_as_imgpkg_sorts_them() -> None:
    keys = ["a10", "a9", "B", "a", "_", "1", "10", "9", "a01", "a100", "a15", "a105", "<<"]

    assert render(dict.fromkeys(keys, True)).splitlines() == [
        "---",
        '"<<": true',
        "_: true",
        '"1": true',
        '"9": true',
        '"10": true',
        "B: true",
        "a: true",
        "a01: true",
        "a9: true",
        "a10: true",
        "a15: true",
        "a100: true",
        "a105: true",
    ]


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.from_regex(r"[-+]?[0-9_.:eExobT ~ynN-]{1,12}", fullmatch=True),
    st.text(st.sampled_from(" \n\t:#-?,[]{}'\"\\a%@`!&*|>~=\x85\u2028\u2029\ufeff\U0001f600")),
)
values = st.recursive(
    st.none() | st.booleans() | texts,
    lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(texts, inner, min_size=1, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, min_size=1, max_size=4))
def test_what_is_written_reads_back(value: dict[str, object]) -> None:
    assert parse(render(value), "w").value == value
    assert parse(render(value).encode(), "w").value == value


@given(st.binary(max_size=200) | texts)
def test_any_input_is_read_or_refused(data: bytes | str) -> None:
    problems: list[str] = []
    try:
        parse(data, "images.yml")
    except InvalidDocument as error:
        problems.append(error.message)
    assert all(problem.startswith("images.yml: ") for problem in problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "w: line 2: not YAML: did not find expected node content"),
        ("a: \x00", "w: not YAML: control characters are not allowed"),
        ("a: \ud800", "w: not YAML: surrogates not allowed"),
        ("a: 1\nb: 2\na: 3\n", "w: line 3: the key 'a' comes twice"),
        ("? [a]\n: b\n", "w: line 1: expected a key that is text, got a list"),
        ("1: b\n", "w: line 1: expected a key that is text, got the number 1"),
        ("a: &x {b: c}\n<<: *x\n", "w: line 2: a merge key; merging isn't done"),
        ('a: &x "<<"\n*x : b\n', "w: line 2: a merge key; merging isn't done"),
        ("a: !!int '3'\n", "w: line 1: tag 'tag:yaml.org,2002:int'; tags aren't read"),
        (
            "a: !!python/name:os.system ''\n",
            "w: line 1: tag 'tag:yaml.org,2002:python/name:os.system'; tags aren't read",
        ),
        ("a: !own {}\n", "w: line 1: tag '!own'; tags aren't read"),
        ("a: *b\n", "w: line 1: the alias 'b' stands for nothing"),
        ("a: &b [*b]\n", "w: line 1: the alias 'b' stands for nothing"),
        ("a: b\n---\na: c\n", "w: line 2: a second document; expected one"),
        (f"a: &b c\nd: [{'*b, ' * (ALIAS_LIMIT + 1)}]\n", "w: line 2: more than 1000 aliases"),
        (f"[{'a,' * VALUE_LIMIT}]", "w: line 1: more than 1000000 values"),
        ("[" * 100_000, "w: line 1: nested more than 32 deep"),
        ("- " * 100_000, "w: line 1: nested more than 32 deep"),
        ("a" * (SIZE_LIMIT + 1), "w: more than 16777216 bytes"),
    ],
    ids=range(19),
)
def test_what_can_hurt_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(text, "w")

    assert str(caught.value) == message


def test_an_alias_bomb_stays_small() -> None:
    lines = ["a0: &a0 boom", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]

    value = parse("\n".join(lines), "w").value

    assert value["a9"][0] is value["a9"][8]


def test_an_explicit_text_tag_makes_text() -> None:
    assert parse("a: !!str 12\n", "w").value == {"a": "12"}


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n"])
def test_an_empty_document_is_null(text: str) -> None:
    assert parse(text, "w").value is None


_PLAIN_PIECES = st.sampled_from(
    [
        *(
            "\n",
            "\n- ",
            "\n  ",
            "\n    ",
            "\n  - ",
            "  ",
            "- ",
            " # x",
            ": ",
            "---",
            "#",
            "<<: ",
            "&a",
            "*a",
            ">",
            "''",
        ),
        *("images:", "image: ", "a:", "b: c", "kind: y", "yes: no", "1.5", "1:20", "2024-02-29", "r.io:5/a@sha256:0a"),
    ]
)


@given(st.lists(_PLAIN_PIECES, max_size=24).map("".join))
def test_a_plain_document_is_read_as_by_the_parser_of_all_yaml(text: str) -> None:
    """What is read without PyYAML means the same there; whatever PyYAML refuses isn't plain."""
    try:
        expected = Composer("w").compose(text, SIZE_LIMIT)
    except InvalidDocument:
        with pytest.raises(InvalidDocument):
            parse(text, "w")
    else:
        assert parse(text, "w").value == expected
