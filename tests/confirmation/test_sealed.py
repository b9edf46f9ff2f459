"""A search gives the same, bit for bit, whatever the sealed test set holds, and where nothing can open it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lmoe_tune
from lmoe_tune.data import embedded, sealed_images, search_data
from lmoe_tune.data.sealed_images import open_test_data
from lmoe_tune.data.sealed_plan import plan_test
from lmoe_tune.data.search_data import load_search_data
from lmoe_tune.data.splits import split_images
from lmoe_tune.data.usable_images import class_split
from lmoe_tune.spec import Dataset, DataSpec, Spec
from lmoe_tune.training import trial
from trainables.worker import TrialWorker

CODE = Path(lmoe_tune.__file__).resolve().parents[1]
TIMING = ("epoch_s", "images_per_s")
SHUT = "import sys; sys.modules['lmoe_tune.data.sealed_images'] = None; sys.modules['lmoe_tune.confirmation'] = None; "


def clear_caches() -> None:
    for cached in (
        search_data.load_embedded,
        search_data._load_files,
        sealed_images.open_test_data,
    ):
        cached.cache_clear()
    trial._held.clear()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def searched(tmp_path: Path) -> Callable[[Spec, str], list[Any]]:
    """What one trial of a search gives, its baseline trained anew: metrics, and the baseline's content hash."""

    def run(spec: Spec, home: str) -> list[Any]:
        from lmoe_tune.spec import resolved_yaml

        clear_caches()
        sweep = tmp_path / home / "sweep"
        sweep.mkdir(parents=True)
        (sweep / "spec.yaml").write_text(resolved_yaml(spec), encoding="utf-8")
        config = {
            "home": str(tmp_path / home),
            "sweep": str(sweep),
            "import_path": str(tmp_path),
            "trial": 0,
        }
        worker = object.__new__(TrialWorker)  # without `setup`, which is for a process of its own
        worker.config = config | {"params": {}}
        epochs = list(worker.start())
        return [
            (
                {name: value for name, value in epoch.metrics.items() if name not in TIMING},
                {name: value for name, value in epoch.baseline.items() if name not in TIMING},
                epoch.baseline_key,
            )
            for epoch in epochs
        ]

    return run


def test_of_the_digits(
    make_spec: Callable[..., Spec],
    searched: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec("train.epochs=1", "model.baseline.epochs=1")
    before = searched(spec, "before")
    honest = open_test_data(spec.data).test

    images, labels = embedded.load_digits()
    classes, parts = (
        class_split(spec.data, 10),
        split_images(labels, split=spec.data.split),
    )
    sealed = np.concatenate([parts.test, np.flatnonzero(np.isin(labels, classes.test_novel))])
    poisoned = images.copy()
    poisoned[sealed] = np.random.default_rng(0).integers(
        0, 256, poisoned[sealed].shape, dtype=np.uint8
    )
    patches = embedded.load_photo_patches

    def poisoned_patches(photo: Any, pool: Any) -> Any:
        return 255 - patches(photo, pool) if pool == "test" else patches(photo, pool)

    monkeypatch.setattr(embedded, "load_digits", lambda: (poisoned, labels))
    for module in (embedded, sealed_images):
        monkeypatch.setattr(module, "load_photo_patches", poisoned_patches)
    assert searched(spec, "after") == before
    assert open_test_data(spec.data).test.fingerprint != honest.fingerprint, (
        "the poison is in the test set"
    )


@pytest.fixture
def photos(tmp_path: Path) -> DataSpec:
    """Folders of little pictures: six classes, outliers, and a coarse set."""
    rng = np.random.default_rng(0)
    for name, num_classes in (("id", 6), ("outliers", 3), ("coarse", 2)):
        for number in range(num_classes):
            folder = tmp_path / name / f"class {number}"
            folder.mkdir(parents=True)
            for image in range(12):
                write_picture(folder / f"{image:02d}.png", rng)
    return DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "outliers")),
        coarse_ood=(Dataset(dataset="folder", root=str(tmp_path / "coarse")),),
        resize=18,
        crop=16,
        num_id_classes=4,
    )


def write_picture(path: Path, rng: np.random.Generator) -> None:
    colours = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(colours).resize((24, 24), Image.Resampling.BICUBIC).save(content, "png")
    path.write_bytes(content.getvalue())


def test_of_image_folders(
    make_spec: Callable[..., Spec],
    photos: DataSpec,
    searched: Callable[..., list[Any]],
    tmp_path: Path,
) -> None:
    small = make_spec("train.epochs=1", "model.baseline.epochs=1", "train.batch_size=8")
    spec = small.model_copy(update={"data": photos})
    before = searched(spec, "before")
    seen = {file.path for file in load_search_data(photos, tmp_path / "before").files()}  # type: ignore[union-attr]

    plan = plan_test(photos, tmp_path / "before")
    rng = np.random.default_rng(1)
    # The outliers' test pool is left as it is: what an image shows decides which pool it is in.
    sealed = [
        path for part in (plan.test, plan.test_fine, *plan.test_coarse) for path in part.files()
    ]
    assert len(sealed) > 40
    assert not seen & set(sealed)
    for path in sealed:
        write_picture(path, rng)
    assert searched(spec, "after") == before
    changed = plan_test(photos, tmp_path / "after")
    assert changed.fingerprint != plan.fingerprint, "the poison is in the test set"


def test_where_nothing_can_open_it_a_search_works_and_a_confirmation_does_not(
    tmp_path: Path,
) -> None:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LMOE_TUNE_", "MLFLOW_"))
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-c",
                SHUT + "from lmoe_tune.cli.main import main; main()",
                *arguments,
            ],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": str(CODE)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            encoding="utf-8",
        )

    small = ("--set", "train.epochs=1", "--set", "model.baseline.epochs=1")
    trained = run("train", "digits", *small, "--json")
    assert trained.returncode == 0, trained.stderr
    assert "test_" not in "".join(json.loads(trained.stdout).get("metrics", {}))
    imported = subprocess.run(
        [
            sys.executable,
            "-c",
            SHUT + "import lmoe_tune.sweep.runner, lmoe_tune.sweep.lifecycle, trainables.worker",
        ],
        env=kept | {"PYTHONPATH": str(CODE)},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert imported.returncode == 0, imported.stderr
    refused = subprocess.run(
        [sys.executable, "-c", SHUT + "import lmoe_tune.confirmation.job"],
        env=kept | {"PYTHONPATH": str(CODE)},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert refused.returncode != 0
