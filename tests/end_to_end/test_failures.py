"""Trials of a user's own method that go wrong in every way end as failed, and the sweep goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

MODULE = """
import os

import torch

from lmoe_tune.methods.baseline import CrossEntropy
from lmoe_tune.methods.objective import StepLoss
from lmoe_tune.spec import Declaration, Parameter
from trainables import Method

WAYS = ("well", "when made", "not one", "raises", "memory", "returns nothing", "nan", "exits", "dies")


class Troubled(Method):
    declaration = Declaration(
        name="troubled",
        summary="cross-entropy that goes wrong on request",
        parameters=(Parameter("way", "choice", "well", "how it goes", choices=WAYS),),
        needs_outliers=False,
    )

    def objective(self, params):
        way = params["way"]
        if way == "when made":
            raise KeyError("temperature")
        return object() if way == "not one" else Loss(way)


class Loss(CrossEntropy):
    def __init__(self, way):
        self.way = way

    def loss(self, model, batch, rng):
        loss = super().loss(model, batch, rng)
        if self.way == "raises":
            raise ValueError("no such margin: " + chr(27) + "[31m" + "x" * 100_000)
        if self.way == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.way == "returns nothing":
            return None
        if self.way == "nan":
            return StepLoss(loss.total * float("nan"), loss.logged)
        if self.way == "exits":
            raise SystemExit(3)
        if self.way == "dies":
            os._exit(1)
        return loss
"""
SPEC = """
name: digits
trainable: troubled:Troubled
data: {id: {dataset: digits}}
train: {epochs: 1}
model: {baseline: {epochs: 2}}
space: {way: {choices: [well, when made, not one, raises, memory, returns nothing, nan, exits, dies]}}
search: {sampler: grid, pruner: none}
resources: {max_retries: 1}
"""
WORDS = {
    "when made": "KeyError: 'temperature'",
    "not one": "must give an Objective",
    "raises": "ValueError: no such margin",
    "memory": "the memory does not suffice",
    "returns nothing": "must give a StepLoss",
    "nan": "epoch 1, step 1: train_loss is nan",
    "exits": "SystemExit: 3",
    "dies": "its process died 2 times (resources.max_retries is 1)",
}


def test_each_failed_trial_says_why_and_the_others_complete(command: Any) -> None:
    (command.cwd / "troubled.py").write_text(MODULE, encoding="utf-8")
    (command.cwd / "spec.yaml").write_text(SPEC, encoding="utf-8")
    one = ("--set", "search.max_concurrent=1")  # the first trial has its epochs before any fails
    done = command.run("search", "spec.yaml", *one, "--json")
    assert done.returncode == 3, done.stderr  # more of them failed than completed
    document = json.loads(done.stdout)
    assert document["state"] == "complete"
    trials = {trial.params["way"]: trial for trial in command.trials()}
    assert {way: trial.state for way, trial in trials.items()} == {
        "well": "complete"
    } | dict.fromkeys(WORDS, "failed")
    for way, words in WORDS.items():
        record = json.loads(
            (command.folder.trial(trials[way].number) / "trial.json").read_text(encoding="utf-8")
        )
        assert words in record["failure"], way
        assert len(record["failure"]) < 5000
        assert "\x1b" not in record["failure"]
        assert (record["traceback"] is None) == (way == "dies"), way
    assert 'raise KeyError("temperature")' in str(trials["when made"].traceback)
    assert document["best"]["trial"] == trials["well"].number
    assert "Traceback" not in done.stderr
