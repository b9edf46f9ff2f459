from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import DIVERGED, SCORES
from lmoe_tune.placements import COMPARABLE, placements_of
from lmoe_tune.spec import Spec, load_spec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.budget import BudgetChange
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, write_records
from lmoe_tune.sweep.trial_files import write_record
from lmoe_tune.training.platform import resolve_platform
from trainables import declarations

SMALL = (
    "train.epochs=1",
    "model.baseline.epochs=1",
    "train.precision=fp32",
    "train.device=cpu",
    "search.pruner=none",
)


@pytest.fixture
def make_ledger(tmp_path: Path) -> Callable[..., Ledger]:
    """A sweep over the digits with nothing in it; `change` edits the resolved spec."""

    def make(*overrides: str, change: Callable[[Spec], Spec] = lambda spec: spec) -> Ledger:
        path = tmp_path / "small.yaml"
        path.write_text(
            "name: small\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n", encoding="utf-8"
        )
        loaded = load_spec(path, overrides=[*SMALL, *overrides], declarations=declarations())
        folder, spec = (
            SweepFolder(tmp_path / "home", "small"),
            change(resolve_platform(loaded.spec)),
        )
        write_records(folder, spec)
        return Ledger.writing(
            folder, spec, first_attrs(spec, BudgetChange(), tmp_path, folder.home)
        )

    return make


@pytest.fixture
def add_trial() -> Callable[..., int]:
    """One complete trial of a sweep, with this value."""

    def add(ledger: Ledger, value: float, accuracy: float = 0.95) -> int:
        number = ledger.ask().number
        ledger.record_epoch(
            number, 1, {"val_auroc": value, "val_accuracy": accuracy}, {"val_accuracy": 0.95}
        )
        return number

    return add


@pytest.fixture
def sweep(make_ledger: Callable[..., Ledger], add_trial: Callable[..., int]) -> Ledger:
    """A finished sweep: trial 0 has the defaults, trial 2 is the best, then 1, 0."""
    ledger = make_ledger("budget.trials=3")
    for value in (0.90, 0.91, 0.95):
        add_trial(ledger, value)
    assert ledger.is_complete()
    return ledger


Aurocs = Callable[[str, int, int], float]


@pytest.fixture
def run_jobs() -> Callable[..., None]:
    """Has every job that waits end: with this AUROC by row, split and seed, or as failed where that is None."""

    def run(
        study: JobLedger,
        auroc: Callable[[str, int, int], float | None],
        fingerprint: Callable[[int], str] = lambda split: "same",
        diverged: Collection[tuple[str, int]] = (),
        accuracy: Callable[[str], float] = lambda name: 0.9,
    ) -> None:
        ledger = study.ledger
        candidates = ledger.attrs["candidates"]
        while ledger.exhausted() is None:
            suggestion = ledger.ask()
            point = suggestion.params
            name = candidates[point["candidate"]]["name"]
            value = auroc(name, point["split"], point["seed"])
            if value is None:
                ledger.fail(suggestion.number, "out of memory")
                continue
            if candidates[point["candidate"]]["purpose"] == "reseed":
                keep_validation(ledger.folder.trial(suggestion.number), value)
                of_validation = dict.fromkeys(COMPARABLE, value) | {"val_accuracy": 0.9}
                ledger.record_epoch(suggestion.number, 1, of_validation, {})
                continue
            metrics = dict.fromkeys(("test_auroc", "test_fine_auroc"), value)
            metrics["test_accuracy"] = accuracy(name)
            write_record(ledger.folder, ledger.trial(suggestion.number))
            keep_test(ledger.folder.trial(suggestion.number), metrics, fingerprint(point["split"]))
            if (name, point["seed"]) in diverged:
                metrics[DIVERGED] = 1.0
            ledger.record_epoch(suggestion.number, 1, {"val_accuracy": 0.9, **metrics}, {})

    return run


def keep_test(folder: Path, metrics: Mapping[str, float], fingerprint: str = "same") -> None:
    content = io.BytesIO()
    shifts = np.linspace(-0.001, 0.001, 21)
    arrays: dict[str, Any] = {
        f"resampled_{name}": value + shifts for name, value in metrics.items()
    }
    arrays["novel_class"], arrays["novel_count"] = np.arange(3), np.array([10, 20, 30])
    arrays["novel_auroc"] = np.full(3, metrics["test_fine_auroc"])
    np.savez(content, fingerprint=np.array(fingerprint), **arrays)
    (folder / SCORES).write_bytes(content.getvalue())


def keep_validation(folder: Path, value: float) -> None:
    """Scores whose separation grows with the value."""
    rng = np.random.default_rng(0)
    known, novel = rng.normal(value * 2, 1, 60), {"fine": rng.normal(0, 1, 40)}
    placements_of(known, novel | {"coarse": rng.normal(0, 1, 50)}).save(folder)


@pytest.fixture
def openings() -> Callable[[Ledger], list[dict[str, Any]]]:
    return view.test_openings
