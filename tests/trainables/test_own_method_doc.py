"""The example of docs/own-method.md, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lmoe_tune.data.batches import Batch
from lmoe_tune.model import build_model
from lmoe_tune.spec import load_spec
from lmoe_tune.testing.methods import MethodCase, draws_for
from lmoe_tune.training.platform import resolve_platform
from lmoe_tune.training.trial import run_trial
from trainables import configured, declarations, load_method, resolve_declaration

DOC = Path(__file__).resolve().parents[2] / "docs" / "own-method.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (code,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (spec,) = re.findall(r"```yaml\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_methods.py").write_text(code, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(spec, encoding="utf-8")
    return tmp_path


def test_its_spec_is_fine_and_its_loss_trains(folder: Path) -> None:
    loaded = load_spec(
        folder / "mine.yaml", declarations=declarations(), resolve=resolve_declaration
    )
    assert set(loaded.spec.space) == {"margin", "outlier_ratio"}
    method = load_method(loaded.spec.trainable, folder)
    params = method.declaration.resolve({"margin": 1.2})
    objective = method.objective(params)
    assert objective.outlier_ratio == 1.0
    torch.manual_seed(0)
    model = build_model("small_cnn", 3, 1)
    batch = Batch(
        torch.randn(6, 1, 8, 8),
        torch.tensor([0, 1, 2] * 2),
        torch.randn(4, 1, 8, 8),
        torch.arange(4),
    )
    loss = objective.loss(model, batch, draws_for(batch))
    assert set(loss.logged) == {"id_loss", "outlier_loss"}
    assert float(loss.total.detach()) == pytest.approx(
        float(loss.logged["id_loss"] + 0.5 * loss.logged["outlier_loss"])
    )
    loss.total.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in model.parameters()
    )


@pytest.mark.slow  # trains a baseline and a trial of one epoch each
def test_it_trains_like_a_shipped_method(folder: Path, tmp_path: Path) -> None:
    small = [
        "train.epochs=1",
        "model.baseline.epochs=1",
        "train.precision=fp32",
        "train.device=cpu",
    ]
    path = folder / "mine.yaml"
    loaded = load_spec(
        path, overrides=small, declarations=declarations(), resolve=resolve_declaration
    )
    spec = resolve_platform(loaded.spec)
    method, params = configured(spec, {"margin": 1.2}, folder)
    (epoch,) = run_trial(
        spec, method.objective(params), params, home=tmp_path / "home", folder=tmp_path / "trial"
    )
    assert {"train_id_loss", "train_outlier_loss", "val_auroc"} <= set(epoch.metrics)
    assert epoch.metrics["train_outlier_loss"] < 1.2  # the hinge can be no larger than its margin


def test_it_passes_the_suite_of_every_method(folder: Path) -> None:
    """The class that the documentation shows, run as pytest would run it."""
    method = type(load_method("my_methods:EntropyMargin", folder))
    case = type("Case", (MethodCase,), {"method": method})()
    tests = [name for name in dir(case) if name.startswith("test_")]
    assert len(tests) > 8
    for name in tests:
        getattr(case, name)()
