from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.trial_files import mend_records, read_record, write_news, write_record


@pytest.fixture
def written(ledger: Callable[..., Ledger], run_trial: Callable[..., Any]) -> Ledger:
    made = ledger("search.pruner=none")
    run_trial(made)
    run_trial(made, epochs=1)
    made.fail(made.ask().number, "epoch 1: train_loss is nan", "the trace")
    return made


def about(path: Path) -> Any:
    return json.loads((path / "trial.json").read_text(encoding="utf-8"))


def test_a_trial_is_written_with_an_epoch_a_line(written: Ledger) -> None:
    trial = written.trial(0)
    write_record(written.folder, trial)
    path = written.folder.trial(0)
    found = about(path)
    assert (found["trial"], found["state"], found["value"]) == (0, "complete", trial.value)
    assert found["params"] == trial.params
    lines = [
        json.loads(line)
        for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[-1]["metrics"] == trial.metrics


def test_a_record_reads_back_as_the_trial_that_the_ledger_has(written: Ledger) -> None:
    for trial in written.trials():
        write_record(written.folder, trial)
        assert read_record(written.folder.trial(trial.number)) == trial
    (written.folder.trial(1) / "trial.json").write_text('{"trial": 1}', encoding="utf-8")
    assert read_record(written.folder.trial(1)) is None


def test_news_and_all_at_once_leave_the_same_files(
    ledger: Callable[..., Ledger], metrics: Callable[..., dict[str, float]]
) -> None:
    made = ledger("search.pruner=none")
    number = made.ask().number
    path = made.folder.trial(number)

    def files() -> list[bytes]:
        return [(path / name).read_bytes() for name in ("trial.json", "metrics.jsonl")]

    for epoch in range(4):  # the start, and three epochs
        if epoch:
            params = made.trial(number).params
            made.record_epoch(number, epoch, metrics(params, epoch), {"val_accuracy": 0.9})
        trial = made.trial(number)
        write_news(made.folder, trial, max(0, epoch - 1))
        found = files()
        write_record(made.folder, trial)
        assert files() == found


def test_a_failed_trial_says_why(written: Ledger) -> None:
    write_record(written.folder, written.trial(2))
    found = about(written.folder.trial(2))
    assert (found["state"], found["failure"], found["traceback"]) == (
        "failed",
        "epoch 1: train_loss is nan",
        "the trace",
    )
    assert (written.folder.trial(2) / "metrics.jsonl").read_text(encoding="utf-8") == ""


def test_what_a_kill_left_out_is_mended_and_the_rest_is_not_touched(written: Ledger) -> None:
    for trial in written.trials():
        write_record(written.folder, trial)
    path = written.folder.path / "trials"
    (path / "0" / "trial.json").unlink()
    (path / "1" / "metrics.jsonl").write_text("", encoding="utf-8")
    (path / "2" / "trial.json").write_text('{"torn', encoding="utf-8")
    before = (path / "2" / "metrics.jsonl").stat().st_ino
    mend_records(written.folder, written.trials())
    assert [about(path / str(number))["state"] for number in range(3)] == [
        "complete",
        "running",
        "failed",
    ]
    assert len((path / "1" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    inodes = [(path / str(number) / "trial.json").stat().st_ino for number in range(3)]
    mend_records(written.folder, written.trials())
    assert [(path / str(number) / "trial.json").stat().st_ino for number in range(3)] == inodes
    assert before != 0
