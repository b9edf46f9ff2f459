"""The page of all messages says what the code says."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

page = importlib.import_module("docs.make_messages")

SOURCE = '''
class LmoeTuneError(Exception):
    """Base."""
    exit_code = 1

class Mine(LmoeTuneError):
    """Mine is
    broken.

    More."""
    exit_code = 2

def check(findings, path, name, folder):
    if name:
        raise Mine(f"{name}: cannot be read; bring {folder.path} back: {advice.resume(name)}")
    text = f"at most {name}, as that is the end"
    findings.refuse(path, text)
    notes.append("a note " "in two pieces of text")
    say("first" if name else "that was the second of them")
    raise ValueError("nobody is told this one here")
'''


def test_every_kind_of_message_is_found_in_the_code() -> None:
    trees = {page.HERE.parent / "lmoe_tune" / "mine.py": ast.parse(SOURCE)}
    errors = page.errors_of(trees.values())

    found = {(one.kind, one.text) for one in page.messages(trees, set(errors))}

    assert errors["Mine"] == "Mine is broken. Exit code 2 if it ends a command."
    assert found == {
        ("Mine", "‹name›: cannot be read; bring ‹path› back: ‹lmoe-tune resume …›"),
        ("spec", "value is ‹value›, but must be at most ‹name›, as that is the end"),
        ("caution", "a note in two pieces of text"),
        ("caution", "that was the second of them"),
    }


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("x is 1, but must be 2: y", ("x is 1", "but must be 2: y")),
        ("x is gone; bring it back", ("x is gone", "bring it back")),
        ("this goes with nothing: leave it out", ("this goes with nothing", "leave it out")),
        ("data.id: there is nothing", ("data.id: there is nothing", "")),
    ],
)
def test_a_message_turns_to_what_to_do(text: str, halves: tuple[str, str]) -> None:
    assert page.halves(text) == halves


def test_well_known_messages_are_there() -> None:
    text = Path(page.PAGE).read_text(encoding="utf-8")
    for words in ("was started with another spec", "is in the list twice", "has no complete trial"):
        assert words in text
