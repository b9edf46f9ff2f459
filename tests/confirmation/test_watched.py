"""What a person sees while a confirmation runs: its jobs by name, and nothing that they measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmoe_tune.cli.live_table import LiveTable
from lmoe_tune.cli.streams import PatientFile
from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import make_plan, make_reseeding
from lmoe_tune.sweep.ledger import Ledger

MEASURED = {"test_auroc": 0.4321, "val_auroc": 0.1234, "val_accuracy": 0.9876, "epoch_s": 2.0}


@pytest.fixture
def table() -> Iterator[LiveTable]:
    """Its thread does not run: `lines` is asked instead."""
    reader, writer = os.pipe()
    found = LiveTable(PatientFile(writer, always=True), "ascii")
    found._foot.start = lambda: None  # type: ignore[method-assign]
    yield found
    os.close(reader)
    os.close(writer)


def handed_out(table: LiveTable, jobs: Ledger, *, epochs: int) -> int:
    """The next job, as a confirmation reports it."""
    number = jobs.ask().number
    table.on_start(jobs.trial(number))
    for epoch in range(1, epochs + 1):
        if jobs.record_epoch(number, epoch, MEASURED, {"val_accuracy": 0.95}):
            table.on_end(jobs.trial(number))
        else:
            table.on_epoch(jobs.trial(number))
    return number


@pytest.mark.parametrize("width", [39, 79])
def test_a_confirmations_jobs_are_counted_and_named(
    sweep: Ledger, tmp_path: Path, table: LiveTable, width: int
) -> None:
    plan = make_plan(sweep, tmp_path, top=1, num_seeds=2)
    study = JobLedger(sweep, tmp_path)
    num_jobs = study.begin(plan, "lmoe-tune confirm small")
    table.on_begin(study.ledger)
    ended = handed_out(table, study.ledger, epochs=1)
    handed_out(table, study.ledger, epochs=0)

    shown = table.lines(width, 20)

    assert shown[0] == f"jobs      1 of {num_jobs}, 1 running"
    assert shown[1].startswith("time ") and shown[1].endswith(" left")
    assert shown[2].startswith("          ..........  0/1  trial 2")
    assert len(shown) == 3
    assert max(map(len, shown)) <= width
    said = table.end_line(study.ledger.trial(ended))
    assert said.startswith(f"[1 of {num_jobs}] trial 2, split 0, seed ")
    assert said.endswith(": done")
    for text in (*shown, said):
        assert not any(digits in text for digits in ("4321", "1234", "9876"))


def test_jobs_that_ended_before_are_not_counted_again(
    sweep: Ledger, tmp_path: Path, table: LiveTable
) -> None:
    study = JobLedger(sweep, tmp_path)
    study.begin(make_plan(sweep, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")
    table.on_begin(study.ledger)
    for _ in range(12):
        handed_out(table, study.ledger, epochs=1)
    study.begin(make_plan(sweep, tmp_path, top=1, num_seeds=3), "lmoe-tune confirm small")

    table.on_begin(study.ledger)
    ended = handed_out(table, study.ledger, epochs=1)

    assert table.lines(79, 20)[0] == "jobs      1 of 6, 0 running"
    assert table.end_line(study.ledger.trial(ended)).startswith("[1 of 6] ")


def test_a_reseedings_jobs_say_what_they_are_validated_on(
    sweep: Ledger, tmp_path: Path, table: LiveTable
) -> None:
    study = JobLedger(sweep, tmp_path)
    study.begin(make_reseeding(sweep, tmp_path, top=1, num_seeds=2), "lmoe-tune confirm small")
    table.on_begin(study.ledger)
    number = handed_out(table, study.ledger, epochs=0)

    assert table.lines(119, 20)[-1].endswith("validation images")
    study.ledger.fail(number, "out of memory")
    said = table.end_line(study.ledger.trial(number))
    assert said.endswith(", validation images: failed: out of memory")
