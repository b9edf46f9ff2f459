from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import LoadedSpec, Spec, spec_from_resolved
from lmoe_tune.sweep import folder as folder_module
from lmoe_tune.sweep import lifecycle
from lmoe_tune.sweep.folder import SweepFolder, SweepLockedError
from lmoe_tune.sweep.ledger import Budget, Ledger
from lmoe_tune.sweep.lifecycle import BudgetChange, first_attrs, prepare, settle, write_records

MakeSpec = Callable[..., Spec]


def loaded(spec: Spec) -> LoadedSpec:
    return LoadedSpec(spec, Path("small.yaml"))


def begin(folder: SweepFolder, spec: Spec, change: BudgetChange | None = None, *, fresh: bool = False) -> Ledger:
    """What a command does before the first trial."""
    ready = prepare(folder, loaded(spec), fresh=fresh)
    write_records(folder, ready)
    first = first_attrs(ready, change or BudgetChange(), Path("/specs"))
    ledger = Ledger.writing(folder, ready, first)
    settle(ledger, change or BudgetChange(), spec_budget=Budget.of(ready))
    return ledger


def resume(folder: SweepFolder, change: BudgetChange | None = None) -> Ledger:
    ledger = Ledger.writing(folder, spec_from_resolved(folder.spec.read_text()))
    settle(ledger, change or BudgetChange(), spec_budget=None)
    return ledger


def test_what_is_automatic_is_decided_at_the_start_and_frozen(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec("search.seed=7"))
    frozen = spec_from_resolved(folder.spec.read_text()).train
    assert frozen.device == "cpu"
    assert frozen.precision in ("fp32", "bf16")
    assert (frozen.threads, frozen.seed) == (1, 7)
    again = prepare(folder, loaded(spec("search.seed=7")), fresh=False)
    assert again.train == frozen


def test_other_resources_do_not_change_the_frozen_threads(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec("resources.cpu=1"))
    again = prepare(folder, loaded(spec("resources.cpu=4")), fresh=False)
    assert again.resources.cpu == 4
    assert again.train.threads == 1


def test_a_changed_spec_is_refused_with_a_line_per_difference(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec())
    before = folder.spec.read_text()
    changed = spec("train.lr=0.5", "search.seed=3", "space.mixing_alpha.high=5")
    with pytest.raises(UsageError) as raised:
        prepare(folder, loaded(changed), fresh=False)
    lines = str(raised.value).splitlines()
    assert "  train.lr: 0.01 -> 0.5" in lines
    assert "  search.seed: 0 -> 3" in lines
    assert any(line.startswith("  space.mixing_alpha.high: ") for line in lines)
    assert "--name" in lines[-1] and "--fresh" in lines[-1]
    assert folder.spec.read_text() == before


def test_budget_resources_and_tracking_may_change_and_are_recorded(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec())
    ledger = begin(folder, spec("budget.trials=20", "resources.max_retries=1", "tracking.experiment=other"))
    assert ledger.budget.trials == 20
    frozen = spec_from_resolved(folder.spec.read_text())
    assert frozen.resources.max_retries == 1
    assert frozen.tracking.experiment == "other"


def test_fresh_starts_anew_and_keeps_the_old_sweep_aside(folder: SweepFolder, spec: MakeSpec) -> None:
    old = begin(folder, spec())
    old.ask()
    new = begin(folder, spec("train.lr=0.5"), fresh=True)
    assert new.trials() == []
    assert new.sweep_id != old.sweep_id
    aside = [path for path in folder.path.parent.iterdir() if path != folder.path]
    assert len(aside) == 1
    assert aside[0].name.startswith("small.")
    kept = SweepFolder(folder.home, aside[0].name)
    assert len(Ledger.reading(kept, old.spec).trials()) == 1


def test_fresh_twice_within_a_second_keeps_both(folder: SweepFolder, spec: MakeSpec) -> None:
    for _ in range(3):
        begin(folder, spec(), fresh=True)
    assert len(list(folder.path.parent.iterdir())) == 3


def test_fresh_without_an_old_sweep_is_a_start(tmp_path: Path, spec: MakeSpec) -> None:
    folder = SweepFolder(tmp_path / "other", "small")
    assert begin(folder, spec(), fresh=True).trials() == []
    assert [path.name for path in folder.path.parent.iterdir()] == ["small"]


def test_fresh_does_not_touch_a_sweep_that_is_worked_on(
    folder: SweepFolder, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE_S", 0.05)
    begin(folder, spec())
    with folder.locked(), pytest.raises(SweepLockedError):
        prepare(folder, loaded(spec()), fresh=True)
    assert folder.exists()


def test_a_sweep_whose_data_cannot_be_read_writes_nothing(
    tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(data: object) -> dict[str, Any]:
        raise UsageError("data/id: no images")

    monkeypatch.setattr(lifecycle, "describe_splits", refuse)
    folder = SweepFolder(tmp_path / "other", "small")
    with pytest.raises(UsageError, match="no images"):
        prepare(folder, loaded(spec()), fresh=False)
    assert not (tmp_path / "other").exists()


def test_the_environment_is_described_and_holds_no_secret(
    folder: SweepFolder, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    begin(folder, spec())
    found = json.loads(folder.environment.read_text())
    assert {"torch", "ray", "optuna", "mlflow"} <= set(found["packages"])
    assert {"python", "platform", "git_commit", "data"} <= set(found)
    for path in folder.path.rglob("*"):
        assert not path.is_file() or "secret" not in path.read_text()


# ------------------------------------------------------------------ budgets


@pytest.mark.parametrize(
    ("change", "trials"),
    [
        (BudgetChange(), 10),
        (BudgetChange(trials=24), 24),
        (BudgetChange(more_trials=8), 18),
        (BudgetChange(trials=24, more_trials=8), 32),
    ],
)
def test_a_budget_is_set_or_extended(change: BudgetChange, trials: int) -> None:
    changed = change.applied(Budget(10, 60.0, None, 3))
    assert changed == Budget(trials, 60.0, None, 3)


def test_time_and_gpu_hours_are_replaced() -> None:
    changed = BudgetChange(time_s=90.0, gpu_hours=2.0).applied(Budget(10, 60.0, 1.0, 3))
    assert changed == Budget(10, 90.0, 2.0, 3)


def test_an_extension_stays_when_the_same_spec_is_given_again(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec("budget.trials=10"))
    assert resume(folder, BudgetChange(more_trials=2)).budget.trials == 12
    assert begin(folder, spec("budget.trials=10")).budget.trials == 12
    assert resume(folder).budget.trials == 12
    assert begin(folder, spec("budget.trials=15")).budget.trials == 15, "a new number in the spec holds"


def test_a_number_on_the_command_line_outlasts_the_command(folder: SweepFolder, spec: MakeSpec) -> None:
    begin(folder, spec("budget.trials=10"), BudgetChange(trials=4))
    assert resume(folder).budget.trials == 4
    assert begin(folder, spec("budget.trials=10")).budget.trials == 4


def test_a_lower_number_than_have_started_does_not_take_them_back(
    folder: SweepFolder, spec: MakeSpec, run_trial: Callable[..., Any]
) -> None:
    ledger = begin(folder, spec("budget.trials=3"))
    for _ in range(3):
        run_trial(ledger)
    assert begin(folder, spec("budget.trials=3"), BudgetChange(trials=2)).budget.trials == 3
    assert resume(folder, BudgetChange(more_trials=2)).budget.trials == 5, "two more than there are"


def test_more_trials_of_a_sweep_bounded_by_time_alone_are_on_top_of_those_there_are(
    folder: SweepFolder, spec: MakeSpec, run_trial: Callable[..., Any]
) -> None:
    ledger = begin(folder, spec("budget.trials=null", "budget.time=1h"))
    for _ in range(3):
        run_trial(ledger)
    assert resume(folder, BudgetChange(more_trials=2)).budget.trials == 5


def test_the_baseline_that_the_trials_start_from_is_recorded(folder: SweepFolder, spec: MakeSpec) -> None:
    assert len(begin(folder, spec()).attrs["baseline"]) == 16


def test_a_sweep_killed_in_its_first_moment_is_resumed(folder: SweepFolder, spec: MakeSpec) -> None:
    ready = prepare(folder, loaded(spec()), fresh=False)
    write_records(folder, ready)
    Ledger.writing(folder, ready)  # killed here: nothing is settled yet
    assert begin(folder, spec()).budget.trials == 16
