from __future__ import annotations

import dataclasses
import json

import pytest

from lmoe_tune.records import EpochRecord, TrialRecord

RECORD = TrialRecord(
    number=3,
    state="pruned",
    params={"mixing_alpha": 0.5, "method": "mixoe"},
    epochs=(
        EpochRecord(1, {"val_auroc": 0.1 + 0.2}, 1_700_000_000_000, {"val_accuracy:min": -0.01}),
    ),
    started_ms=1_699_999_999_000,
    ended_ms=1_700_000_000_001,
    values=(0.1 + 0.2,),
    violation=0.25,
    failure="no",
    traceback="…",
    ended_by="the time is used up",
    retry_of=1,
    retries=2,
    notes=("a checkpoint is damaged",),
    host="gpu3",
    device="cuda",
    gpu="NVIDIA H100",
    distributions={"mixing_alpha": '{"name": "FloatDistribution"}'},
    optuna={"constraints:val_accuracy:min": 0.25},
)


def test_a_record_comes_back_from_json_with_every_field() -> None:
    for field in dataclasses.fields(TrialRecord):
        assert getattr(RECORD, field.name) != field.default, f"{field.name} is not tried here"
    found = json.loads(json.dumps(RECORD.to_json()))
    assert found["trial"] == 3 and found["value"] == RECORD.value
    assert TrialRecord.from_json(found) == RECORD


def test_what_is_no_record_is_refused() -> None:
    found = RECORD.to_json()
    with pytest.raises(TypeError, match="surprise"):
        TrialRecord.from_json({**found, "surprise": 1})
    del found["trial"]
    with pytest.raises(KeyError):
        TrialRecord.from_json(found)


def test_value_and_metrics_are_those_of_the_last_epoch() -> None:
    assert RECORD.value == RECORD.values[0]
    assert RECORD.metrics == {"val_auroc": 0.1 + 0.2}
    fresh = TrialRecord(0, "running", {}, (), 0)
    assert fresh.value is None and fresh.metrics == {}
