"""Whatever is done to a spec, it loads, or every problem is told with its place; nothing else happens."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import load_spec, resolved_yaml, spec_from_resolved

NUM_MUTANTS = 300
PLACE = re.compile(r"(x\.yaml|x\.yaml:\d+:\d+|--set .+)")

# fmt: off
WORDS = [
    "", "~", "null", "true", "no", "0", "-1", "1", "1.5", "1e-4", "1e999", "-.inf", ".nan", "9" * 40, "abc",
    "..", "../x", "/", "[]", "{}", "[1, [2]]", "{a: {b: c}}", "{low: 1}", "{low: 2, high: 1}",
    "{choices: []}", "{choices: [1, 1]}", "[{}]", "'1'", '"\\0"',
    '"\\U0001F600"', "12:30", "2024-01-02", "8h",
    "baseline - 0.02",
    "baseline + 2", "*x", "&x 1", "&x [*x]", "!!python/name:os.system", "!!binary aGk=", "!x", "<<", "? a",
    "- a", "| \n", "@", "`", "%", "\t", "#", "digits", "webvision", "http://u:p@h", "[" * 60, "{a: " * 60,
    "\x00", "\ud7ff", "é", "\u2028",
]
KEYS = [
    "low", "high", "log", "step", "int", "choices", "lr", "name", "data", "epochs", "gpu", "<<", "", "1",
    "true", "ä", "x y",
]
# fmt: on


def replace_value(rng, text):
    spots = [match.span(1) for match in re.finditer(r":[ ]+([^,{}\[\]#\n]+)", text)]
    start, end = rng.choice(spots or [(0, 0)])
    return text[:start] + rng.choice(WORDS) + text[end:]


def replace_key(rng, text):
    spots = [match.span(1) for match in re.finditer(r"([A-Za-z_]+):", text)]
    start, end = rng.choice(spots or [(0, 0)])
    key = text[start:end]
    slip = rng.choice(
        [key[:-1], key + "s", key.upper(), key[::-1], rng.choice(KEYS), f'"{key}"', f"!!str {key}"]
    )
    return text[:start] + slip + text[end:]


def delete_line(rng, text):
    lines = text.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def double_line(rng, text):
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    return "".join([*lines[: place + 1], lines[place], *lines[place + 1 :]])


def indent_line(rng, text):
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice([" ", "  ", "\t"]) + lines[place]
    return "".join(lines)


def cut(rng, text):
    return text[: rng.randrange(len(text))]


def insert(rng, text):
    place = rng.randrange(len(text))
    return (
        text[:place]
        + rng.choice([*WORDS, ":", ",", "}", "]", "\n", "---\n", "'", '"'])
        + text[place:]
    )


def delete(rng, text):
    place = rng.randrange(len(text))
    return text[:place] + text[place + rng.randrange(1, 20) :]


MUTATIONS = [
    replace_value,
    replace_value,
    replace_key,
    delete_line,
    double_line,
    indent_line,
    cut,
    insert,
    delete,
]


def encode(rng, text):
    data = text.encode("utf-8", "surrogatepass")
    choice = rng.randrange(12)
    if choice == 0:
        return text.encode(rng.choice(["utf-16", "utf-16-le", "utf-32"]), "surrogatepass")
    if choice == 1:
        place = rng.randrange(len(data) + 1)
        return data[:place] + bytes([rng.randrange(256)]) + data[place:]
    if choice == 2:
        return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
    return data


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["digits.yaml", "cars.yaml"])
@pytest.mark.parametrize("block", range(6))
def test_a_mutated_spec_loads_or_tells_what_is_wrong(
    name, block, shipped, tmp_path, monkeypatch, declarations
):
    monkeypatch.chdir(tmp_path)
    original = (shipped / name).read_text(encoding="utf-8")
    outcomes = {"loads": 0, "refused": 0}
    for number in range(NUM_MUTANTS // 6):
        rng = random.Random(f"{name} {block} {number}")
        text = original
        for _ in range(rng.choice([1, 1, 2, 4])):
            text = rng.choice(MUTATIONS)(rng, text) if text else text
        Path("x.yaml").write_bytes(encode(rng, text))
        overrides = (
            [f"{rng.choice(KEYS)}.{rng.choice(KEYS)}={rng.choice(WORDS)}"]
            if rng.random() < 0.2
            else []
        )
        loaded, problems = None, []
        try:
            loaded = load_spec(Path("x.yaml"), overrides=overrides, declarations=declarations)
        except SpecError as error:
            problems = error.problems
        assert (loaded is None) == bool(problems)
        outcomes["loads" if loaded is not None else "refused"] += 1
        if loaded is not None:
            assert spec_from_resolved(resolved_yaml(loaded.spec)) == loaded.spec
        for problem in problems:
            assert PLACE.fullmatch(problem.where), problem
            assert problem.what
            assert str(problem).encode().count(b"\n") == 0
        places = [(problem.where, problem.key) for problem in problems]
        assert len(places) == len(set(places)), "one place, one problem"
    assert all(outcomes.values()), outcomes
