from __future__ import annotations

import pytest
import yaml

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import document
from lmoe_tune.spec.document import Mapping, core_value, node_at, parse


@pytest.fixture(params=["libyaml", "python"])
def loader(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)


def fault(text):
    with pytest.raises(SpecError) as caught:
        parse(text, "f", [])
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-12", -12),
        ("007", 7),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1e", "1e"),
        (".", "."),
        ("-.inf", float("-inf")),
        ("nan", "nan"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    found = core_value(text)
    assert (type(found), found) == (type(value), value)


def test_every_key_and_value_knows_its_place(loader):
    root = parse("a: 1\nb:\n  - x\n  - {c:   2}\n", "f", [])
    assert isinstance(root, Mapping)
    assert root.entries["b"].key_mark.where == "f:2:1"
    inner = node_at(root, "b", 1)
    assert inner.mark.where == "f:4:5"
    assert inner.entries["c"].key_mark.where == "f:4:6"
    assert node_at(inner, "c").mark.where == "f:4:11"


def test_a_duplicate_key_is_reported_and_the_first_one_counts(loader):
    problems = []
    root = parse("a: {b: 1, b: 2}\n", "f", problems)
    assert root.plain() == {"a": {"b": 1}}
    assert [str(problem) for _, problem in problems] == [
        "f:1:11 a.b: the key is set twice: first in line 1"
    ]


def test_an_alias_stands_for_a_copy(loader):
    root = parse("a: &x {c: 1}\nb: *x\n", "f", [])
    node_at(root, "b").entries.clear()
    assert root.plain() == {"a": {"c": 1}, "b": {}}


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n", "---\n", "null"])
def test_an_empty_document_is_none(loader, text):
    assert parse(text, "f", []) is None


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [1\n", "f:2:1", "not valid YAML"),
        ("a:\n\tb: 1\n", "f:2:1", "a tab indents this line"),
        ("a: b: c\n", "f:1:5", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "a second document"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "f:1:4",
            "tag !!python/object/apply:os.system",
        ),
        ("a: !!str 1\n", "f:1:4", "tag !!str"),
        ("!x a: 1\n", "f:1:1", "tag !x"),
        ("a: &a [*a]\n", "f:1:4", "inside what it refers to"),
        ("a: *b\n", "f:1:4", "found undefined alias"),
        ("? [a]\n: 1\n", "f:1:3", "a key must be a plain word"),
        ("a: \x00\n", "f:1:4", "U+0000"),
        ("a: '\x1b[31m'\n", "f:1:5", "U+001B"),
        ('a: "\\U99999999"\n', "f:1:", "not valid YAML"),
        ("a: " + "9" * 5000, "f:1:4", "more than 100 digits"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "f:2:5", "merge keys (<<) are not read"),
        ("a:\n  \xa0b: 1\n", "f:2:3", "a no-break space (U+00A0) is here"),
        ("a: 1\xa0\n", "f:1:4", "a no-break space (U+00A0) is here"),
        ("a\uff1a 1\nb: 2\n", "f:", "a fullwidth colon (U+FF1A) is"),
        ("a: \u201cx\u201d\n", "f:1:4", "a left double quotation mark (U+201C) is"),
        ("a: \u22121\n", "f:1:4", "a minus sign (U+2212) is here"),
        ("a: 1\nb\ufeff: 2\n", "f:2:2", "zero width no-break space (U+FEFF)"),
        ("%YAML 3.0\n---\na: 1\n", "f:1:1", "not valid YAML"),
    ],
)
def test_what_is_no_plain_document_is_one_problem_with_a_place(loader, text, place, words):
    message = fault(text)
    assert message.startswith(place)
    assert words in message


@pytest.mark.parametrize("text", ["a: 1 # caf\xe9\xa0\n", "a: 'b\xa0c'\n", "a: 1\r\nb: 2\r\n"])
def test_what_looks_odd_in_a_comment_or_in_quotes_and_line_ends_of_windows_are_read(loader, text):
    assert next(iter(parse(text, "f", []).entries)) == "a"


def test_a_lone_surrogate_is_refused(loader):
    assert "f:1:" in fault('a: "\\uD800"\n')


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{chr(98 + place)}: &{chr(98 + place)} [{', '.join(['*' + chr(97 + place)] * 10)}]\n"
    for place in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "with its aliases written out"),
        ("[" * 100_000, "nested deeper than 50"),
        ("{a: " * 50_000, "nested deeper than 50"),
        ("- " * 100_000, "nested deeper than 50"),
        (
            "a: &a [[[[1]]]]\nb: &b [[*a]]\nc: " + "[" * 45 + "*b" + "]" * 45,
            "nested deeper than 50",
        ),
        ("[" + "1," * 100_000 + "]", "more than 20000 values"),
        ("".join(f"k{place}: 1\n" for place in range(20_000)), "more than 20000 values"),
    ],
    ids=["aliases", "lists", "mappings", "dashes", "aliased depth", "values", "keys"],
)
@pytest.mark.timeout(30)
def test_bombs_are_refused_at_once(loader, text, words):
    assert words in fault(text)


def test_a_file_that_is_no_text_is_one_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = {
        b"a: 1\nb: caf\xe9\n": "x.yaml:2:7 byte 0xe9 is not UTF-8; save the file as UTF-8",
        "a: 1".encode("utf-16"): "x.yaml:1:1 is UTF-16 text; save it as UTF-8",
        b"x" * 1_000_001: "x.yaml:1:1 is larger than 1000 kB, so it cannot be a spec",
    }
    path = tmp_path / "x.yaml"
    for data, message in cases.items():
        path.write_bytes(data)
        with pytest.raises(SpecError) as caught:
            document.read_text(path)
        assert str(caught.value) == message


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert document.read_text(path) == "a: 1\n"


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words in (("absent.yaml", "No such file"), (".", "is a folder")):
        with pytest.raises(SpecError, match=words):
            document.read_text(tmp_path / name)
