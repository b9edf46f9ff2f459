"""What a dry run says of time and GPU-hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.api import dry_run
from lmoe_tune.api.loading import load_spec
from lmoe_tune.spec import Spec

RESERVED = "GPU-hours reserved in all"


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
