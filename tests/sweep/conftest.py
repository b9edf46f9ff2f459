from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec, load_spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from trainables import declarations

BASELINE = {"val_accuracy": 0.95, "val_auroc": 0.9}


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Spec]:
    """A spec over the digits, three epochs a trial, with what `--set` overrides say."""

    def make(*overrides: str) -> Spec:
        path = tmp_path / "small.yaml"
        path.write_text(
            "name: small\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n", encoding="utf-8"
        )
        loaded = load_spec(
            path, overrides=["train.epochs=3", *overrides], declarations=declarations()
        )
        return loaded.spec

    return make


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path / "home", "small")
    made.path.mkdir(parents=True)
    return made


@pytest.fixture
def ledger(spec: Callable[..., Spec], folder: SweepFolder) -> Callable[..., Ledger]:
    """A ledger opened for writing; each call with fresh objects over the same file."""

    def make(*overrides: str) -> Ledger:
        return Ledger.writing(folder, spec(*overrides))

    return make


@pytest.fixture
def metrics() -> Callable[..., dict[str, float]]:
    """What a trial with these parameters would measure after an epoch: a pure function of both."""

    def measure(params: dict[str, Any], epoch: int) -> dict[str, float]:
        scatter = sum((place + 1) * hash_unit(value) for place, value in enumerate(params.values()))
        auroc = 0.6 + 0.3 * (scatter % 1) * (1 - 0.5**epoch)
        loss = 2.0 + hash_unit([*params.values(), epoch])
        return {
            "val_auroc": auroc,
            "val_accuracy": 0.9 + 0.1 * hash_unit(params),
            "epoch_s": 1.0,
            "train_loss": loss,
        }

    return measure


def hash_unit(value: Any) -> float:
    """A number from 0 to 1 that is the same in every process."""
    text = json.dumps(value)
    return (
        sum((place + 1) * ord(char) for place, char in enumerate(text)) * 2654435761 % 2**32
    ) / 2**32


@pytest.fixture
def run_trial(metrics: Callable[..., dict[str, float]]) -> Callable[..., TrialRecord]:
    """Ask for a trial and record its epochs until it ends, or until `epochs` are recorded."""

    def run(ledger: Ledger, epochs: int | None = None, **changed: float) -> TrialRecord:
        suggestion = ledger.ask()
        for epoch in range(1, (ledger.spec.train.epochs if epochs is None else epochs) + 1):
            measured = metrics(suggestion.params, epoch) | changed
            if ledger.record_epoch(suggestion.number, epoch, measured, BASELINE):
                break
        return ledger.trial(suggestion.number)

    return run


@pytest.fixture
def baseline() -> dict[str, float]:
    return dict(BASELINE)


@pytest.fixture
def swept(
    ledger: Callable[..., Ledger],
    run_trial: Callable[..., Any],
    folder: SweepFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> Ledger:
    """Two complete trials (the second better), a pruned, a failed and a running one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    written = ledger("search.pruner=none", "budget.trials=9")
    write_records(folder, written.spec)
    run_trial(written, val_auroc=0.7, val_accuracy=0.95)
    run_trial(written, val_auroc=0.8, val_accuracy=0.95)
    run_trial(written, epochs=1, val_auroc=0.6)
    written.end_early(2, "for the test")
    written.fail(written.ask().number, "epoch 1: train_loss is nan")
    run_trial(written, epochs=1, val_auroc=0.9)
    return written
