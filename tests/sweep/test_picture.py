from __future__ import annotations

from lmoe_tune.sweep import picture
from lmoe_tune.sweep.ledger import Ledger


def test_the_snapshot_for_tracking_says_what_the_ledger_says(swept: Ledger) -> None:
    found = picture.snapshot(swept, "running")
    assert [trial.state for trial in found.trials] == [
        "complete",
        "complete",
        "pruned",
        "failed",
        "running",
    ]
    assert (found.best, found.feasible) == (1, True)
    assert found.searched == tuple(swept.spec.space)
    epochs = found.trials[0].epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert epochs[0].time_ms == swept.trial(0).epochs[0].time_ms, "a replay logs the identical time"


def test_models_are_the_last_checkpoints_of_the_best(swept: Ledger) -> None:
    assert picture.models(swept) == []
    for number, epochs in ((0, (2, 3)), (1, (2, 3)), (4, (1,))):
        swept.folder.checkpoints(number).mkdir(parents=True)
        for epoch in epochs:
            (swept.folder.checkpoints(number) / f"epoch-{epoch:04d}-0123456789abcdef.pt").touch()
    found = picture.models(swept)
    assert [(model.trial, model.checkpoint.name) for model in found] == [
        (1, "epoch-0003-0123456789abcdef.pt"),
        (0, "epoch-0003-0123456789abcdef.pt"),
    ]
