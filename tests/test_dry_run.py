"""What a dry run says of time and GPU-hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.api import dry_run
from lmoe_tune.api.loading import load_spec
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.budget import BudgetChange
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import prepare, write_records
from lmoe_tune.sweep.view import read_spec

RESERVED = "GPU-hours reserved in all"


def search(home: Path, *ends: str | None, trials: int = 12) -> SweepFolder:
    """A sweep of the digits with a trial for each of these ends; None: it is interrupted."""
    loaded = load_spec("digits", [f"budget.trials={trials}"])
    folder = SweepFolder(home, "digits")
    spec = prepare(folder, loaded, fresh=False).spec
    write_records(folder, spec)
    ledger = Ledger.writing(folder, spec)
    measured = {"val_auroc": 0.9, "val_accuracy": 0.95}
    for end in ends:
        number = ledger.ask().number
        if end == "failed":
            ledger.fail(number, "no")
        for epoch in range(1, spec.train.epochs + 1 if end == "complete" else 1):
            ledger.record_epoch(number, epoch, measured, measured)
    return folder


def test_of_a_sweep_that_exists_only_what_is_left_is_planned(tmp_path: Path) -> None:
    folder = search(tmp_path, "complete", "complete", "failed", None)
    before = folder.ledger.read_bytes()
    found = dry_run.dry_run(load_spec("digits", ["budget.trials=12"]), home=tmp_path)

    assert found.started == {"complete": 2, "pruned": 0, "failed": 1, "running": 1}
    assert (found.trials, found.left, found.complete) == (12, 9, None)
    assert list(found.numbers) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert found.cost["images trained in all"] == 9 * found.cost["images trained per trial"]
    assert folder.ledger.read_bytes() == before, "nothing is written"

    real = Ledger.writing(folder, read_spec(folder))
    assert found.configurations[0] == real.unfinished()[0].params
    assert found.configurations[1] == real.ask().params


def test_more_trials_are_planned_beside_those_there_are(tmp_path: Path) -> None:
    search(tmp_path, "complete", "complete", trials=2)
    loaded = load_spec("digits", ["budget.trials=2"])
    ended = dry_run.dry_run(loaded, home=tmp_path)
    assert (ended.left, ended.configurations) == (0, [])
    assert ended.complete is not None
    assert "all 2 trials have been started; to extend it: " in ended.complete
    assert ended.cost["images trained in all"] == 0

    more = dry_run.dry_run(loaded, home=tmp_path, trials="+3")
    assert (more.trials, more.left, more.complete) == (5, 3, None)
    assert list(more.numbers) == [2, 3, 4]


def test_a_sweep_that_a_search_would_refuse_is_refused(tmp_path: Path) -> None:
    search(tmp_path, "complete")
    changed = load_spec("digits", ["search.seed=7"])
    with pytest.raises(UsageError, match="was started with another spec"):
        dry_run.dry_run(changed, home=tmp_path)

    fresh = dry_run.foreseen(changed, BudgetChange(), tmp_path, fresh=True)
    assert not any(fresh.started.values()) and fresh.numbers[0] == 0


def on_gpus() -> Spec:
    return load_spec("digits", ["resources.gpu=1", "model.baseline.epochs=10"]).spec


def with_baseline(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """As if so many of the baseline's epochs were there, of six minutes each."""
    record: dict[str, Any] = {"epochs": [{"metrics": {"epoch_s": 360.0}}] * epochs}
    monkeypatch.setattr(dry_run, "read_baseline_record", lambda home, key: record)


def test_what_waits_for_the_baseline_is_in_the_gpu_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = on_gpus()
    with_baseline(monkeypatch, 10)
    trained = dry_run.estimate(spec, 8, 4, tmp_path)
    with_baseline(monkeypatch, 5)
    half = dry_run.estimate(spec, 8, 4, tmp_path)

    assert trained[RESERVED] == pytest.approx(8 * trained["seconds per trial"] / 3600)
    assert half["hours in all"] - trained["hours in all"] == pytest.approx(0.5)
    assert half[RESERVED] - trained[RESERVED] == pytest.approx(4 * 0.5)


def test_before_the_baseline_gpu_hours_are_a_rough_model_and_on_a_cpu_there_are_none(
    tmp_path: Path,
) -> None:
    rough = dry_run.estimate(on_gpus(), 8, 4, tmp_path)
    assert "by a rough model" in rough[RESERVED]
    endless = dry_run.estimate(on_gpus(), None, 4, tmp_path)
    assert "as many as budget.gpu_hours" in endless[RESERVED]
    assert RESERVED not in dry_run.estimate(load_spec("digits").spec, 8, 2, tmp_path)
