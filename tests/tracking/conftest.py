from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, SweepSnapshot
from lmoe_tune.tracking.settings import SETTINGS
from lmoe_tune.tracking.store import connect

START = 1_700_000_000_000


@pytest.fixture(autouse=True)
def no_address_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's address, nor the settings that they have for MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes half a second, so the tests copy it."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def trial() -> Callable[..., TrialRecord]:
    def make(
        number: int, state: Any = "complete", num_epochs: int = 2, **changes: Any
    ) -> TrialRecord:
        started = START + 10_000 * number
        values: dict[str, Any] = {
            "params": {"mixing_alpha": number + 0.5, "consistency_weight": 1.0, "mix_weight": 1.0},
            "epochs": make_epochs(num_epochs, started, 0.5 + number / 100),
            "started_ms": started,
            "ended_ms": None if state == "running" else started + 9_000,
        }
        return TrialRecord(number, state, **(values | changes))

    return make


@pytest.fixture
def sweep() -> Callable[..., SweepSnapshot]:
    def make(*trials: TrialRecord, **changes: Any) -> SweepSnapshot:
        values: dict[str, Any] = {
            "sweep": "digits",
            "sweep_id": "5d0f0f0c-0000-4000-8000-000000000001",
            "experiment": "digits",
            "state": "running",
            "spec_yaml": "name: digits\n",
            "trainable": "logit_mixoe",
            "objective": "val_auroc",
            "direction": "maximize",
            "started_ms": START,
            "trials": trials,
            "best": None,
            "feasible": True,
            "baseline": None,
            "searched": ("mixing_alpha", "consistency_weight"),
        }
        return SweepSnapshot(**(values | changes))

    return make


@pytest.fixture
def baseline() -> BaselineSnapshot:
    epochs = make_epochs(3, START - 5_000, 0.4)
    return BaselineSnapshot("abc123", "complete", {"lr": 0.1}, epochs, START - 5_000, START - 100)


def make_epochs(num_epochs: int, started: int, value: float) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(
            epoch, {"val_auroc": value + epoch / 1000, "train_loss": 1 / epoch}, started + epoch
        )
        for epoch in range(1, num_epochs + 1)
    )
