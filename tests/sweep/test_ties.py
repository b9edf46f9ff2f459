from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmoe_tune.placements import placements_of
from lmoe_tune.records import PLACEMENTS_FILE
from lmoe_tune.sweep import view
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.sweep.ties import has_defaults
from trainables.worker import Report

NOWHERE = Path("/nowhere")


def end(control: SweepControl, shift: float, noise: float = 0.3) -> int:
    """One trial from its start to its end, with the scores of the same images as all others."""
    ledger = control.ledger
    suggestion = ledger.ask()
    control.on_start(suggestion)
    folder = ledger.folder.trial(suggestion.number)
    truth, own = np.random.default_rng(0), np.random.default_rng(suggestion.number)
    known = truth.normal(1, 1, 200) + own.normal(0, noise, 200) + shift
    found = placements_of(known, {"fine": truth.normal(0, 1, 200) + own.normal(0, noise, 200)})
    found.save(folder)
    metrics = {"val_auroc": found.auroc("val_auroc"), "val_accuracy": 0.9}
    for epoch in range(1, ledger.spec.train.epochs + 1):
        control.on_report(Report(suggestion.number, epoch, metrics, metrics))
    return suggestion.number


@pytest.fixture
def control(ledger: Callable[..., Ledger]) -> SweepControl:
    opened = ledger("search.pruner=none", "tracking.best_checkpoints=2")
    return SweepControl(opened, Observer(), import_path=NOWHERE)


def test_the_trials_that_cannot_be_told_apart_from_the_best_are_marked(
    control: SweepControl,
) -> None:
    for shift in (-1.0, 0.5, 0.52, 0.0):  # the first is at the defaults
        end(control, shift)
    rows = {row["trial"]: row for row in view.leaderboard(control.ledger)}
    best = view.best_of(control.ledger)
    assert rows[best["trial"]]["tied"] is True
    assert (rows[1]["tied"], rows[2]["tied"]) == (True, True)
    assert rows[0]["tied"] is False, "the defaults are kept, and are clearly worse"
    assert rows[3]["tied"] is None, "nothing is known where nothing was kept"
    assert sorted(best["tied"]) == [1, 2]


def test_the_scores_go_with_the_checkpoint_but_for_those_of_the_defaults(
    control: SweepControl,
) -> None:
    numbers = [end(control, shift) for shift in (-1.0, 0.1, 0.2, 0.3)]
    kept = [n for n in numbers if (control.ledger.folder.trial(n) / PLACEMENTS_FILE).exists()]
    assert kept == [0, 2, 3]


def test_of_objectives_that_are_no_auroc_nothing_is_said(ledger: Callable[..., Ledger]) -> None:
    opened = ledger("search.pruner=none", "objective={metric: val_accuracy}")
    control = SweepControl(opened, Observer(), import_path=NOWHERE)
    end(control, 0.0)
    assert [row["tied"] for row in view.leaderboard(opened)] == [None]


def test_a_trial_at_the_defaults_is_known_as_such(control: SweepControl) -> None:
    first, second = end(control, 0.0), end(control, 0.0)
    ledger = control.ledger
    assert has_defaults(ledger.spec, ledger.trial(first), NOWHERE)
    assert not has_defaults(ledger.spec, ledger.trial(second), NOWHERE)
