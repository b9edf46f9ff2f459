"""Sweeps that are killed at every point of their ledger end as the uninterrupted one does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import decode

Metrics = Callable[..., dict[str, float]]
GRID = (
    "space.mixing_alpha={choices: [0.5, 1.0, 2.0]}",
    "space.consistency_weight={choices: [0, 1]}",
    "space.outlier_ratio={choices: [0.5, 1]}",
)
SLOTS = 2
CASES = [
    (sampler, pruner, seed)
    for seed, sampler in enumerate(("tpe", "random", "qmc", "grid"))
    for pruner in ("asha", "hyperband", "median", "none")
]
METHODS = (
    (
        "space={method: {choices: [logit_mixoe, baseline]}, mixing_alpha: {low: 0.1, high: 10, log: true}, "
        "outlier_ratio: {low: 0.25, high: 1}, baseline.lr: {low: 0.001, high: 0.1, log: true}, "
        "weight_decay: {choices: [0, 1.0e-4]}}"
    ),
)  # each has parameters that the other one lacks
TWO_OBJECTIVES = ("objective=[{metric: val_auroc}, {metric: val_accuracy}]",)
CONSTRAINED = (
    "objective=[{metric: val_auroc, constraints: {val_accuracy: {min: 0.94}}}, {metric: train_loss}]",
)
SPACES = [
    *(
        (METHODS, sampler, pruner, 11)
        for sampler in ("tpe", "random")
        for pruner in ("asha", "hyperband")
    ),
    *((TWO_OBJECTIVES, sampler, "none", 12) for sampler in ("tpe", "nsga2", "random")),
    *((CONSTRAINED, sampler, "none", 13) for sampler in ("tpe", "nsga2")),
    ((*METHODS, *TWO_OBJECTIVES), "tpe", "none", 14),
    ((*METHODS, *CONSTRAINED), "nsga2", "none", 15),
]


def work(ledger: Ledger, metrics: Metrics, baseline: dict[str, float]) -> None:
    """Two slots; whichever trial is furthest behind goes next, so the order follows from the ledger alone."""
    while not ledger.is_complete():
        running = ledger.unfinished()
        if len(running) < SLOTS and ledger.exhausted() is None:
            ledger.ask()
            continue
        trial = min(
            running, key=lambda trial: (len(ledger.trial(trial.number).epochs), trial.number)
        )
        epoch = len(ledger.trial(trial.number).epochs) + 1
        if trial.number == 2 and epoch == 2:
            ledger.fail(2, "epoch 2: train_loss is nan")
        else:
            ledger.record_epoch(trial.number, epoch, metrics(trial.params, epoch), baseline)


def contents(study: optuna.Study) -> list[Any]:
    """All that the ledger says of its trials, but for the time of day."""
    return [
        (
            trial.number,
            trial.state,
            trial.params,
            trial.values,
            trial.intermediate_values,
            trial.system_attrs,
            {
                key: value["metrics"] if "epoch:" in key else value
                for key, value in trial.user_attrs.items()
            },
        )
        for trial in study.trials
    ]


def ends_of_transactions(content: bytes) -> list[int]:
    """Lengths of the file at which nothing is torn, with that of the empty file."""
    ends, position = [0], 0
    for line in content.splitlines(keepends=True):
        position += len(line)
        if b'"left":0,' in line:
            ends.append(position)
    return ends


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("sampler", "pruner", "seed", "space"),
    [(*case, ()) for case in CASES]
    + [(sampler, pruner, seed, space) for space, sampler, pruner, seed in SPACES],
)
def test_cut_after_any_transaction_a_sweep_ends_as_the_uninterrupted_one(
    spec: Callable[..., Spec],
    folder: SweepFolder,
    metrics: Metrics,
    baseline: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    pruner: str,
    seed: int,
    space: tuple[str, ...],
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # this machine stays up
    chosen = spec(
        f"search.sampler={sampler}",
        f"search.pruner={pruner}",
        f"search.seed={seed}",
        "search.min_epochs=1",
        f"search.start_from=[{{mixing_alpha: 1.0, {'' if space else 'consistency_weight: 1.0, '}outlier_ratio: 1.0}}]",
        f"budget.trials={16 if sampler == 'nsga2' else 7}",
        *space,
        *(GRID if sampler == "grid" else ()),
    )
    uninterrupted = Ledger.writing(folder, chosen)
    work(uninterrupted, metrics, baseline)
    expected = contents(uninterrupted.study)
    content = folder.ledger.read_bytes()
    for end in ends_of_transactions(content):
        folder.ledger.write_bytes(content[:end])
        resumed = Ledger.writing(folder, chosen)
        work(resumed, metrics, baseline)
        assert contents(resumed.study) == expected, f"cut at byte {end}"
        assert contents(Ledger.reading(folder, chosen).study) == expected, (
            f"cut at byte {end}, read back"
        )


def test_cut_within_any_record_the_ledger_opens_as_after_the_transaction_before(
    spec: Callable[..., Spec], folder: SweepFolder, metrics: Metrics, baseline: dict[str, float]
) -> None:
    ledger = Ledger.writing(folder, spec("budget.trials=4", "search.min_epochs=1"))
    work(ledger, metrics, baseline)
    content = folder.ledger.read_bytes()
    ends = ends_of_transactions(content)
    for place, start in enumerate(ends[:-1]):
        tail, first = content[start : ends[place + 1]], content[:start].count(b"\n")
        newlines = [at + 1 for at, byte in enumerate(tail[:-1]) if byte == ord("\n")]
        for cut in sorted(
            {1, len(tail) // 2, len(tail) - 1, *newlines, *(at + 9 for at in newlines)}
        ):
            assert decode(content[start : start + cut], origin="ledger", first=first) == ([], 0)


def test_a_trial_that_was_running_is_offered_again_and_none_is_left_running_at_the_end(
    spec: Callable[..., Spec], folder: SweepFolder, metrics: Metrics, baseline: dict[str, float]
) -> None:
    chosen = spec("budget.trials=3", "search.pruner=none")
    killed = Ledger.writing(folder, chosen)
    first, second = killed.ask(), killed.ask()
    killed.record_epoch(first.number, 1, metrics(first.params, 1), baseline)
    resumed = Ledger.writing(folder, chosen)
    assert resumed.unfinished() == [first, second]
    work(resumed, metrics, baseline)
    assert [trial.number for trial in resumed.trials()] == [0, 1, 2]
    assert resumed.unfinished() == []
    assert "running" not in {trial.state for trial in resumed.trials()}
