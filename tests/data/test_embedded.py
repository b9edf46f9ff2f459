from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from lmoe_tune.data import embedded
from lmoe_tune.data.embedded import load_digits, load_photo_patches
from lmoe_tune.errors import UsageError

POOLS = ("train", "val", "test")


@pytest.fixture
def photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that takes the place of scikit-learn's photograph."""
    path = tmp_path / "photograph.png"
    monkeypatch.setattr(embedded, "_sklearn_file", lambda name: path)
    return path


def test_the_digits_are_those_of_scikit_learn() -> None:
    images, labels = load_digits()
    theirs = sklearn.datasets.load_digits()
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, np.rint(theirs.images * 255 / 16))
    np.testing.assert_array_equal(labels, theirs.target)


def test_the_digits_hold_no_image_twice() -> None:
    images, _ = load_digits()
    assert len({image.tobytes() for image in images}) == len(images) == 1797


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("photo", ["china", "flower"])
def test_patches_are_grey_eight_by_eight(photo, pool) -> None:
    patches = load_photo_patches(photo, pool)
    assert patches.dtype == np.uint8
    assert patches.shape[1:] == (8, 8)
    assert len(patches) == {"train": 2340, "val": 182, "test": 208}[pool]


def test_the_pools_of_a_photograph_share_no_pixel(photograph: Path) -> None:
    """What changes within one band of a picture changes only its pool, and nothing hangs on the gaps."""
    before = np.random.default_rng(0).integers(0, 256, (48, 200), dtype=np.uint8)
    bands = {
        "train": (0, 104),
        "val": (120, 144),
        "test": (160, 200),
        "gap": (104, 120),
        "second gap": (144, 160),
    }  # 60 / 20 / 20% of 200 columns, less a patch between two of them

    def pools(picture: np.ndarray) -> dict[str, bytes]:
        Image.fromarray(picture).save(photograph)
        return {pool: load_photo_patches("china", pool).tobytes() for pool in POOLS}

    original = pools(before)
    for band, (start, stop) in bands.items():
        changed = before.copy()
        changed[:, start:stop] = 255 - changed[:, start:stop]
        found = pools(changed)
        assert {pool for pool in POOLS if found[pool] != original[pool]} == {band} & set(POOLS)


def test_every_patch_is_stretched_to_the_full_range(photograph: Path) -> None:
    Image.fromarray(np.tile(np.arange(50, 150, dtype=np.uint8), (48, 2))).save(photograph)
    patches = load_photo_patches("china", "train")
    assert set(patches.min(axis=(1, 2)).tolist()) == {0}
    assert set(patches.max(axis=(1, 2)).tolist()) == {255}


def test_a_patch_without_any_contrast_stays_plain(photograph: Path) -> None:
    Image.fromarray(np.full((48, 200), 130, np.uint8)).save(photograph)
    assert set(load_photo_patches("china", "train").ravel().tolist()) == {0}


def test_a_patch_is_the_mean_of_two_by_two_pixels_stretched_to_the_full_range(
    photograph: Path,
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, size=(16, 100), dtype=np.uint8)
    Image.fromarray(grey).save(photograph)
    patches = load_photo_patches(
        "china", "train"
    )  # 60 columns less 16: patches start at 0, 8, 16, 24
    assert len(patches) == 4
    for number, patch in enumerate(patches):
        means = [
            [
                grey[2 * row : 2 * row + 2, left : left + 2].mean()
                for left in range(8 * number, 8 * number + 16, 2)
            ]
            for row in range(8)
        ]
        darkest, brightest = np.min(means), np.max(means)
        np.testing.assert_array_equal(
            patch, np.rint((np.array(means) - darkest) * (255 / (brightest - darkest)))
        )


def test_patches_outside_training_do_not_overlap(photograph: Path) -> None:
    assert embedded.STRIDES["val"] == embedded.STRIDES["test"] == embedded.PATCH_SIZE


def test_a_scikit_learn_without_the_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nothing\.csv: this scikit-learn lacks the file"):
        embedded._sklearn_file("data/nothing.csv")


def test_no_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install scikit-learn"):
        load_digits()


def test_reading_the_data_imports_neither_scikit_learn_nor_torch() -> None:
    code = (
        "import sys; from lmoe_tune.data.embedded import load_digits, load_photo_patches\n"
        "load_digits(); load_photo_patches('china', 'val')\n"
        "print(sorted({'sklearn', 'torch', 'ray', 'optuna', 'mlflow'} & set(sys.modules)))"
    )
    root = Path(embedded.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.strip() == "[]"
