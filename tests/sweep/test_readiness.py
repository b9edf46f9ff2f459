"""What a sweep on this machine would only meet later is said before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

import lmoe_tune as lt
from lmoe_tune.api import running
from lmoe_tune.cli import machine
from lmoe_tune.cli.spec import check
from lmoe_tune.spec.architectures import IMAGENET_FILES
from lmoe_tune.sweep import readiness


@pytest.fixture(autouse=True)
def on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(readiness, "num_gpus", lambda: 0)
    monkeypatch.setattr(readiness, "HINTS_OF_GPUS", ())
    monkeypatch.setattr(readiness.shutil, "which", lambda name: None)
    monkeypatch.setattr(running, "is_local", lambda address: True)


@pytest.mark.parametrize("more", ["resources.gpu=1", "resources.cpu=10000"])
def test_a_trial_that_does_not_fit_leaves_no_sweep(tmp_path: Path, more: str) -> None:
    with pytest.raises(lt.UsageError, match="a trial asks for cpu"):
        lt.search("digits", home=tmp_path, overrides=[more])
    assert lt.list_sweeps(tmp_path) == []


@pytest.mark.parametrize("gpu", ["1", "0.5"])
def test_a_gpu_that_only_ray_may_find_counts_at_a_start_a_check_a_dry_run_and_in_doctor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpu: str,
) -> None:
    monkeypatch.setattr(readiness, "HINTS_OF_GPUS", (str(tmp_path),))
    loaded = lt.load_spec("digits", [f"resources.gpu={gpu}"])
    readiness.refuse_unready(loaded.spec, tmp_path)
    assert lt.dry_run(loaded, home=tmp_path).slots == int(1 / float(gpu))
    check("digits", [f"resources.gpu={gpu}"], tmp_path)
    assert "would be refused" not in capsys.readouterr().out
    (gpus,) = [row["found"] for row in machine.hardware() if row["what"] == "GPUs"]
    assert gpus == f"there may be one ({tmp_path}), but torch sees none"


def test_a_hint_is_no_gpu_for_trials_that_ask_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "HINTS_OF_GPUS", (str(tmp_path),))
    assert lt.dry_run("digits", home=tmp_path).machine.gpus == 0


@pytest.mark.parametrize("arch", IMAGENET_FILES)
def test_the_files_of_weights_are_called_as_torchvision_calls_them(arch: str) -> None:
    url = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"].url
    assert url.rpartition("/")[2] == IMAGENET_FILES[arch]


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME"])
def test_weights_that_are_not_here_are_fetched_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    asked: list[str] = []
    monkeypatch.setattr("lmoe_tune.weights.imagenet_file", asked.append)
    spec = lt.load_spec("digits").spec
    model = spec.model.model_copy(update={"arch": "resnet18", "weights": "imagenet"})
    spec = spec.model_copy(update={"model": model})
    assert readiness._hub() == Path(torch.hub.get_dir())

    readiness.refuse_unready(spec, tmp_path)
    assert asked == ["resnet18"]
    there = readiness._hub() / "checkpoints" / IMAGENET_FILES["resnet18"]
    there.parent.mkdir(parents=True)
    there.touch()
    readiness.refuse_unready(spec, tmp_path)
    assert asked == ["resnet18"]
