"""The questions that a home has asked its sealed test sets: `HOME/questions.jsonl`, which is
append-only.

A *question* is a test set and the configuration that is compared on it; a *look* is one set of
trainings that it was answered with. Both are numbered, and their numbers decide how strong the
evidence must be to be called real (`lmoe_tune.statistics.Asked`). They are recorded before anything
of the test is known, under a lock, in whole lines that are on the disk before the answer is given;
a line that a kill left half-written is cut off by the next writer. The seeds that confirmations
have taken are here too, so that no two of them share one.

One JSON object a line:

    {"kind": "question", "number": 1, "id": …, "about": {…}, "sweep": …, "sweep_id": …, "who": …, …}
    {"kind": "look", "question": 1, "number": 1, "id": …, "pairs": 5, "sweep": …, "sweep_id": …, …}
    {"kind": "seeds", "sweep_id": …, "purpose": "confirm", "seeds": [1000, 1001], …}

Each ends with `time_ms`, when it was written.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lmoe_tune.durable import sync_folder, writing
from lmoe_tune.errors import UsageError

FILE = "questions.jsonl"
_KEYS = {
    "question": {"number", "id", "about", "sweep_id"},
    "look": {"question", "number", "id", "sweep"},
    "seeds": {"sweep_id", "purpose", "seeds"},
}
"""What is read of each kind of line."""


@dataclass(frozen=True)
class Look:
    """One set of trainings that a question was answered with."""

    number: int
    ident: str
    sweep: str


@dataclass(frozen=True)
class Question:
    """A test set, and the configuration that was compared on it."""

    number: int
    ident: str
    about: Mapping[str, Any]
    sweep_id: str
    """Of the sweep that asked first."""
    looks: tuple[Look, ...] = ()


def read_questions(home: Path) -> list[Question]:
    """All questions of a home, by number; at any moment, beside a writer.

    Raises:
        UsageError: the file is damaged.
    """
    return _questions(_records(_content(home), home))


def ask(home: Path, ident: str, about: Mapping[str, Any], asker: Mapping[str, Any]) -> Question:
    """The question with this identity; recorded with the next number where it is a new one.

    Args:
        about: what it is, for readers of the file.
        asker: `sweep`, `sweep_id` and `who`.

    Raises:
        UsageError: the file is damaged.
        StorageError: it cannot be written.
    """
    with _held(home) as (file, records):
        known = [one.ident for one in _questions(records)]
        if ident not in known:
            line = {"kind": "question", "number": len(known) + 1, "id": ident, "about": about}
            _append(file, {**line, **asker})

    return next(one for one in read_questions(home) if one.ident == ident)


def look(home: Path, question: Question, ident: str, pairs: int, asker: Mapping[str, Any]) -> Look:
    """The look at a question with these trainings; recorded with the next number where it is a new
    one.

    Raises:
        UsageError: the file is damaged.
        StorageError: it cannot be written.
    """
    with _held(home) as (file, records):
        (now,) = (one for one in _questions(records) if one.ident == question.ident)
        number = len(now.looks) + 1
        if ident not in [one.ident for one in now.looks]:
            line = {"kind": "look", "question": now.number, "number": number, "id": ident}
            _append(file, {**line, "pairs": pairs, **asker})

    (now,) = (one for one in read_questions(home) if one.ident == question.ident)
    return next(one for one in now.looks if one.ident == ident)


def take_seeds(
    home: Path, sweep_id: str, purpose: str, count: int, *, first: int, avoid: set[int]
) -> tuple[int, ...]:
    """The first `count` seeds of a sweep for a purpose: those it has taken before, and new ones.

    New ones count up from `first`, without those that are taken already and those to `avoid`.

    Raises:
        UsageError: the file is damaged.
        StorageError: it cannot be written.
    """
    with _held(home) as (file, records):
        own, new = _seeds(records, sweep_id, purpose, count, first, avoid)
        if new:
            line = {"kind": "seeds", "sweep_id": sweep_id, "purpose": purpose, "seeds": new}
            _append(file, line)

    return (*own, *new)


def free_seeds(
    home: Path, sweep_id: str, purpose: str, count: int, *, first: int, avoid: set[int]
) -> tuple[int, ...]:
    """What `take_seeds` would give now; nothing is recorded."""
    own, new = _seeds(_records(_content(home), home), sweep_id, purpose, count, first, avoid)
    return (*own, *new)


def _seeds(
    records: Sequence[Mapping[str, Any]],
    sweep_id: str,
    purpose: str,
    count: int,
    first: int,
    avoid: set[int],
) -> tuple[list[int], list[int]]:
    """Of `count` seeds those that are taken already, and those that are to be taken."""
    own, taken = list[int](), set(avoid)
    for one in records:
        if one["kind"] == "seeds":
            taken.update(one["seeds"])
            if (one["sweep_id"], one["purpose"]) == (sweep_id, purpose):
                own += one["seeds"]

    new = (seed for seed in itertools.count(first) if seed not in taken)
    return own[:count], list(itertools.islice(new, max(0, count - len(own))))


@contextmanager
def _held(home: Path) -> Iterator[tuple[BinaryIO, list[dict[str, Any]]]]:
    """The file, locked against other processes, with its records; what was half-written is cut off."""
    path = home / FILE
    with writing(path):
        home.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        file = path.open("a+b")
    with file:
        with writing(path):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            if is_new:
                sync_folder(home)
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
        yield file, _records(content, home)


def _append(file: BinaryIO, record: Mapping[str, Any]) -> None:
    line = json.dumps({**record, "time_ms": time.time_ns() // 1_000_000}) + "\n"
    with writing(Path(file.name)):
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _content(home: Path) -> bytes:
    try:
        return (home / FILE).read_bytes()
    except FileNotFoundError:
        return b""


def _records(content: bytes, home: Path) -> list[dict[str, Any]]:
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    try:
        found = [json.loads(line) for line in lines]
        if all(_KEYS[one["kind"]] <= one.keys() for one in found) and _are_counted(found):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass

    raise UsageError(
        f"{home / FILE} is damaged, or another program has written it. It says what was asked of the "
        "sealed test sets, so nothing is confirmed without it: restore it from a backup, or start another home"
    )


def _are_counted(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether questions, and the looks at each, are numbered from 1: none is missing."""
    numbered: dict[Any, list[int]] = {}
    for one in records:
        if one["kind"] != "seeds":
            numbered.setdefault(one.get("question"), []).append(one["number"])
    return all(numbers == [*range(1, len(numbers) + 1)] for numbers in numbered.values())


def _questions(records: Sequence[Mapping[str, Any]]) -> list[Question]:
    looks: dict[int, list[Look]] = {}
    for one in records:
        if one["kind"] == "look":
            found = Look(one["number"], one["id"], one["sweep"])
            looks.setdefault(one["question"], []).append(found)

    return [
        Question(
            number=one["number"],
            ident=one["id"],
            about=one["about"],
            sweep_id=one["sweep_id"],
            looks=tuple(looks.get(one["number"], ())),
        )
        for one in records
        if one["kind"] == "question"
    ]
