from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.api.one_trial import repeat
from lmoe_tune.data import search_data
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import load_spec
from lmoe_tune.sweep.budget import BudgetChange
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, write_records
from lmoe_tune.sweep.same_data import change_of_data, refuse_other_data
from lmoe_tune.training.platform import resolve_platform
from tests.data import trees
from trainables import declarations


@pytest.fixture
def images(tmp_path: Path) -> Path:
    trees.class_folders(tmp_path / "out", ("car", "tree"), per_class=20, seed=3)
    return trees.class_folders(tmp_path / "id", per_class=10)


@pytest.fixture
def ledger(images: Path, tmp_path: Path) -> Ledger:
    """A sweep on folders of images, with one trial of one epoch."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {id: {dataset: folder, root: id}, outliers: {dataset: folder, root: out}}\n"
        "model: {arch: small_cnn}\nspace: {mixing_alpha: {low: 0.1, high: 1}}\n",
        encoding="utf-8",
    )
    spec = resolve_platform(load_spec(path, declarations=declarations()).spec, cuda=False)
    folder = SweepFolder(tmp_path / "home", "mine")
    folder.path.mkdir(parents=True)
    write_records(folder, spec)
    made = Ledger.writing(folder, spec, first_attrs(spec, BudgetChange(), tmp_path, folder.home))
    metrics = {"val_auroc": 0.9, "val_accuracy": 0.9}
    made.record_epoch(made.ask().number, 1, metrics, metrics)
    return made


def in_another_process() -> None:
    """As later, when nothing that was read is remembered."""
    search_data._load_files.cache_clear()


def test_an_image_less_is_said_by_part_of_the_split(ledger: Ledger, images: Path) -> None:
    assert change_of_data(ledger, ledger.spec.data) is None

    for name in ("ant", "bee", "cat", "dog"):
        (images / name / "img 0.jpg").unlink()
    in_another_process()
    changed = change_of_data(ledger, ledger.spec.data)
    assert changed is not None and changed.startswith("data: ")
    assert "train had " in changed and "images and has " in changed


def test_another_picture_in_the_place_of_one_is_said(ledger: Ledger, images: Path) -> None:
    for number in range(10):
        trees.save(images / "ant" / f"img {number}.jpg", trees.picture(77 + number))
        trees.save(images / "bee" / f"img {number}.jpg", trees.picture(177 + number))
        trees.save(images / "cat" / f"img {number}.jpg", trees.picture(277 + number))
    in_another_process()
    changed = change_of_data(ledger, ledger.spec.data)
    assert changed is not None and changed.endswith("(other files, but as many)")


def test_a_renamed_class_is_named(ledger: Ledger, images: Path) -> None:
    for name in ("ant", "bee", "cat", "dog"):
        (images / name).rename(images / f"{name} new")
    in_another_process()
    changed = change_of_data(ledger, ledger.spec.data)
    assert changed is not None
    assert "gone: class " in changed and "new: class " in changed


def test_nothing_is_trained_again_on_other_images(ledger: Ledger, images: Path) -> None:
    refuse_other_data(ledger)
    repeat(ledger, 0)

    for name in ("ant", "bee", "cat", "dog"):
        (images / name / "img 1.jpg").unlink()
    in_another_process()
    with pytest.raises(UsageError, match=r"data of the sweep 'mine' have changed .*Restore the"):
        repeat(ledger, 0)
