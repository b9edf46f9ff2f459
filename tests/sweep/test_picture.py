from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lmoe_tune.durable import read_text
from lmoe_tune.sweep import picture
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records


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


def test_what_is_the_same_for_all_trials_is_documented(ledger: Callable[..., Ledger]) -> None:
    page = read_text(Path(__file__).parents[2] / "docs" / "mlflow.md")
    written = ledger("fixed.mix_weight=1.0", "train.seed=3")
    write_records(written.folder, written.spec)
    found = picture.snapshot(written, "running").constants
    assert (found["arch"], found["data"], found["fixed.mix_weight"]) == (
        "small_cnn",
        "digits",
        "1.0",
    )
    for name in found:
        tag = re.sub(r"fixed\..*", "fixed.…", name)
        assert f"`lmoe_tune.{tag}`" in page, f"{name} is missing in docs/mlflow.md"


def test_data_sets_have_a_role_and_the_fingerprint(swept: Ledger) -> None:
    found = picture.snapshot(swept, "running").datasets
    assert [one.role for one in found] == [
        "training",
        "validation",
        "held-out classes",
        "outliers",
        "coarse",
    ]
    assert len({one.digest for one in found}) == 1 and all(one.num_images for one in found)
