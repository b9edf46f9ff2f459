from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.remembered import Remembered

Row = dict[str, Any]


class Finder:
    """Finds a row, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, folder: SweepFolder) -> Row:
        self.asked += 1
        return {"sweep": folder.name, "bytes": folder.ledger.stat().st_size}


@pytest.fixture
def made(ledger: Callable[..., Ledger], run_trial: Callable[..., Any]) -> Ledger:
    written = ledger("search.pruner=none")
    written.folder.spec.write_text("name: small\n", encoding="utf-8")
    run_trial(written)
    return written


def listed(folder: SweepFolder, find: Finder) -> Row:
    remembered = Remembered(folder.home)
    row = remembered.row(folder, find)
    remembered.save()
    return row


def test_a_row_is_found_once_while_nothing_changes(made: Ledger) -> None:
    find = Finder()
    first = listed(made.folder, find)
    assert listed(made.folder, find) == first == find(made.folder)
    assert find.asked == 2, "once by the list, once here"


@pytest.mark.parametrize("name", ["spec.yaml", "ledger.jsonl", "tracking.jsonl"])
def test_it_is_found_again_where_a_file_has_changed_though_neither_size_nor_time_say_so(
    made: Ledger, name: str
) -> None:
    find, path = Finder(), made.folder.path / name
    path.touch()
    listed(made.folder, find)
    before, content = path.stat(), path.read_bytes() or b"x"
    path.write_bytes(bytes([content[0] ^ 1, *content[1:]]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    listed(made.folder, find)
    assert find.asked == 2


def test_other_things_that_a_row_shows_are_looked_at_too(
    made: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = Finder()
    listed(made.folder, find)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    listed(made.folder, find)
    monkeypatch.chdir(tmp_path)
    listed(made.folder, find)
    (made.folder.home / "questions.jsonl").write_text("{}\n", encoding="utf-8")
    listed(made.folder, find)
    assert find.asked == 4


def test_a_row_is_found_again_where_the_checkpoint_that_it_names_was_deleted(
    made: Ledger, tmp_path: Path
) -> None:
    asked, checkpoint = [], tmp_path / "epoch-0003.pt"
    checkpoint.touch()

    def find(folder: SweepFolder) -> Row:
        asked.append(folder.name)
        there = str(checkpoint) if checkpoint.exists() else None
        return {"sweep": folder.name, "best": {"checkpoint": there}}

    for is_there in (True, True, False, False):
        if not is_there:
            checkpoint.unlink(missing_ok=True)
        remembered = Remembered(made.folder.home)
        row = remembered.row(made.folder, find)
        remembered.save()
        assert (row["best"]["checkpoint"] is not None) == is_there
    assert len(asked) == 2


def test_what_runs_is_always_found(made: Ledger) -> None:
    find = Finder()
    with made.folder.locked():
        listed(made.folder, find)
        listed(made.folder, find)
    assert find.asked == 2
    assert not (made.folder.home / "cache" / "list.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"small": 1}', '{"small": {"found_from": 1}}'])
def test_a_damaged_file_is_as_none(made: Ledger, content: str) -> None:
    find, path = Finder(), made.folder.home / "cache" / "list.json"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    listed(made.folder, find)
    listed(made.folder, find)
    assert find.asked == 1
    assert json.loads(path.read_text(encoding="utf-8")).keys() == {"small"}


def test_a_home_that_cannot_be_written_is_listed_all_the_same(made: Ledger) -> None:
    (made.folder.home / "cache").write_text("in the way", encoding="utf-8")
    find = Finder()
    listed(made.folder, find)
    listed(made.folder, find)
    assert find.asked == 2
