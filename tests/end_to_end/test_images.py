"""A whole sweep over folders of JPEGs: plan, decoded cache, augmentation, a ResNet, ledger and records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmoe_tune import checkpoint
from lmoe_tune.description import ModelDescription
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.view import read_sweep
from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SPEC = """
name: photos
trainable: logit_mixoe
data:
  id: {dataset: folder, root: id}
  outliers: {dataset: folder, root: outliers, exclude: [class 0/none.jpg]}
  coarse_ood: []
  resize: 36
  crop: 32
model: {arch: resnet18, weights: none, baseline: {epochs: 1, lr: 0.05}}
train: {epochs: 1, batch_size: 16, lr: 0.01, weight_decay: 1e-4, device: cpu, precision: fp32}
space:
  consistency_weight: {low: 0, high: 5}
budget: {trials: 2}
search: {pruner: none, max_concurrent: 1}
"""


def write_photos(folder: Path, num_classes: int, per_class: int, seed: int) -> None:
    """JPEGs of coarse random patterns, each class with a colour of its own."""
    rng = np.random.default_rng(seed)
    for number in range(num_classes):
        (folder / f"class {number}").mkdir(parents=True)
        colour = rng.random(3) * 200
        for image in range(per_class):
            pattern = (rng.random((4, 5, 3)) * 55 + colour).astype(np.uint8)
            size = (int(rng.integers(40, 80)), int(rng.integers(40, 80)))
            Image.fromarray(pattern).resize(size).save(
                folder / f"class {number}" / f"{image:03d}.jpg", quality=90
            )


def test_a_sweep_over_folders_of_jpegs(tmp_path: Path) -> None:
    write_photos(tmp_path / "id", num_classes=6, per_class=12, seed=0)
    write_photos(tmp_path / "outliers", num_classes=3, per_class=12, seed=1)
    (tmp_path / "photos.yaml").write_text(SPEC, encoding="utf-8")
    command = Command(tmp_path)

    built = command.look("data", "build", "photos.yaml", "--json")
    assert built.returncode == 0, built.stderr
    document = json.loads(built.stdout)
    assert document["decoded_now"] == document["images"] > 40
    (segment,) = Path(document["folder"]).glob("segment-*")

    done = command.run("search", "photos.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["complete"] == 2
    assert done.stderr.count("data.outliers.exclude: ") == 1, "what the inspection found odd"
    assert list(Path(document["folder"]).glob("segment-*")) == [segment], (
        "nothing was decoded again"
    )

    folder = SweepFolder(command.home, "photos")
    for trial in read_sweep(folder).trials():
        assert {"val_accuracy", "val_fine_auroc", "val_coarse_auroc"} <= trial.metrics.keys()
        state = checkpoint.load_newest(folder.path / "trials" / str(trial.number) / "checkpoints")
        assert state is not None
        describes = ModelDescription.of_record(state["describes"], whose="it", fix="")
        assert describes.arch == "resnet18"
        assert (describes.preprocessing.resize, describes.preprocessing.crop) == (36, (32, 32))
