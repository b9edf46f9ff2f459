from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lmoe_tune import questions
from lmoe_tune.errors import UsageError
from lmoe_tune.questions import FILE, Question, ask, free_seeds, look, read_questions, take_seeds

ASKER = {"sweep": "cars", "sweep_id": "one", "who": "somebody@here"}


def asked(home: Path, ident: str) -> Question:
    return ask(home, ident, {"winner": ident}, ASKER)


def test_a_question_is_numbered_once_and_the_same_ever_after(tmp_path: Path) -> None:
    assert read_questions(tmp_path) == []
    numbers = [asked(tmp_path, ident).number for ident in ("a", "b", "a", "c", "b")]
    assert numbers == [1, 2, 1, 3, 2]
    assert [one.ident for one in read_questions(tmp_path)] == ["a", "b", "c"]
    first = json.loads((tmp_path / FILE).read_text(encoding="utf-8").splitlines()[0])
    assert first.items() >= {"number": 1, "id": "a", "about": {"winner": "a"}, **ASKER}.items()


def test_the_same_trainings_are_the_same_look(tmp_path: Path) -> None:
    first, second = asked(tmp_path, "a"), asked(tmp_path, "b")
    assert look(tmp_path, first, "five seeds", 5, ASKER).number == 1
    assert look(tmp_path, first, "ten seeds", 10, ASKER).number == 2
    assert look(tmp_path, first, "five seeds", 5, ASKER).number == 1
    assert look(tmp_path, second, "five seeds", 5, ASKER).number == 1
    looks = [[one.number for one in question.looks] for question in read_questions(tmp_path)]
    assert looks == [[1, 2], [1]]
    lines = [json.loads(one) for one in (tmp_path / FILE).read_text(encoding="utf-8").splitlines()]
    assert [line["pairs"] for line in lines if line["kind"] == "look"] == [5, 10, 5]


def test_seeds_are_never_taken_twice(tmp_path: Path) -> None:
    def take(sweep: str, count: int, purpose: str = "confirm") -> tuple[int, ...]:
        return take_seeds(tmp_path, sweep, purpose, count, first=1000, avoid={1001})

    assert take("one", 2) == (1000, 1002)
    assert take("two", 3) == (1003, 1004, 1005)
    assert take("one", 4) == (1000, 1002, 1006, 1007)
    assert take("one", 1) == (1000,), "the first of more are those of fewer"
    assert take("one", 1, "reseed") == (1008,)
    assert free_seeds(tmp_path, "one", "confirm", 5, first=1000, avoid={1001}) == (
        *take("one", 4),
        1009,
    )


@pytest.mark.parametrize("cut", [1, 2, 20, 39])
def test_a_line_that_a_kill_left_half_written_never_was(tmp_path: Path, cut: int) -> None:
    asked(tmp_path, "a")
    asked(tmp_path, "b")
    path = tmp_path / FILE
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    assert [one.ident for one in read_questions(tmp_path)] == ["a"]
    assert asked(tmp_path, "c").number == 2
    assert [one.ident for one in read_questions(tmp_path)] == ["a", "c"]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    asked(tmp_path, "a")
    path = tmp_path / FILE
    path.write_bytes(b"not ours\n" + path.read_bytes())
    for use in (read_questions, lambda home: asked(home, "b")):
        with pytest.raises(UsageError, match=r"questions.jsonl is damaged, .* restore it"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"kind": "question", "number": 1', '"kind": "quesuion", "number": 1'),
        ('"kind": "look"', '"kind": ["look"]'),
        ('"sweep_id"', '"sweep_ie"'),
        ('"number": 2, "id": "b"', '"number": 3, "id": "b"'),
        ('"question": 1, "number": 1', '"question": 1, "number": 2'),
        ('"number": 1, "id": "a"', '"number": "1", "id": "a"'),
    ],
)
def test_a_line_that_would_hide_a_question_is_damage(
    before: str, after: str, tmp_path: Path
) -> None:
    look(tmp_path, asked(tmp_path, "a"), "five seeds", 5, ASKER)
    asked(tmp_path, "b")
    path = tmp_path / FILE
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"questions.jsonl is damaged, .* restore it"):
        read_questions(tmp_path)


def test_a_question_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    for ident in ("a", "b", "c"):
        asked(tmp_path, ident)
    path = tmp_path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(UsageError, match=r"questions.jsonl is damaged, .* restore it"):
        asked(tmp_path, "d")


def _ask_many(home: Path, worker: int) -> None:
    for number in range(10):
        ask(home, f"{worker}, {number}", {}, ASKER)
        take_seeds(home, f"{worker}, {number}", "confirm", 3, first=1000, avoid=set())


def test_processes_that_ask_at_once_get_numbers_and_seeds_of_their_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_ask_many, args=(tmp_path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [one.number for one in read_questions(tmp_path)] == list(range(1, 41))
    names = [f"{worker}, {number}" for worker in range(4) for number in range(10)]
    seeds = [
        seed
        for name in names
        for seed in free_seeds(tmp_path, name, "confirm", 3, first=1000, avoid=set())
    ]
    assert sorted(seeds) == list(range(1000, 1120))


def test_it_is_written_before_the_answer_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right after the write: the question stands."""

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    asked(tmp_path, "a")
    monkeypatch.setattr(questions.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path, "b")
    monkeypatch.undo()
    assert [one.ident for one in read_questions(tmp_path)] == ["a", "b"]
