from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.readers.recognition import find_layout
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, class_of, table


class TestStanfordCars(ReaderCase):
    dataset = "stanford_cars"

    def build(self, root: Path) -> Path:
        return trees.cars(root)


@pytest.mark.parametrize(
    ("nested", "devkit", "labelled"),
    [(False, "devkit", ""), (True, "devkit", "devkit"), (True, "car_devkit/devkit", "")],
)
def test_stanford_cars_as_unpacked(
    tmp_path: Path, nested: bool, devkit: str, labelled: str
) -> None:
    found = table(
        "stanford_cars", trees.cars(tmp_path, nested=nested, devkit=devkit, labelled_test=labelled)
    )
    assert_is_whole(found)
    assert found.classes == trees.CAR_NAMES
    assert Counter(found.official) == {"train": 30, "test": 30}
    folder = "cars_train/cars_train" if nested else "cars_train"
    assert class_of(found, f"{folder}/00001.jpg") == trees.CAR_NAMES[0]
    assert class_of(found, f"{folder}/00006.jpg") == trees.CAR_NAMES[5]
    assert class_of(found, f"{folder}/00007.jpg") == trees.CAR_NAMES[0]


def test_the_browsers_name_of_a_second_download_is_read_too(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    name = tmp_path / "cars_test_annos_withlabels.mat"
    name.rename(tmp_path / "cars_test_annos_withlabels (1).mat")
    assert Counter(table("stanford_cars", tmp_path).official) == {"train": 30, "test": 30}


def test_without_test_labels_the_training_images_are_split_and_it_is_said(tmp_path: Path) -> None:
    reading = read_table("stanford_cars", str(trees.cars(tmp_path, labelled_test=None)))
    assert_is_whole(reading)
    assert Counter(reading.official) == {"": 30}
    assert any(
        "cars_test_annos_withlabels.mat" in note and "60 / 20 / 20%" in note
        for note in reading.notes
    )


def test_the_older_packing_of_stanford_cars(tmp_path: Path) -> None:
    found = table("stanford_cars", trees.car_ims(tmp_path))
    assert_is_whole(found)
    assert found.classes == trees.CAR_NAMES
    assert Counter(found.official) == {"train": 18, "test": 18}
    assert class_of(found, "car_ims/000001.jpg") == trees.CAR_NAMES[0]
    assert class_of(found, "car_ims/000007.jpg") == trees.CAR_NAMES[1]


def test_a_car_class_beyond_the_names_is_refused(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    trees.mat(
        tmp_path / "devkit/cars_meta.mat",
        class_names=scipy.io.loadmat(tmp_path / "devkit/cars_meta.mat")["class_names"][:, :3],
    )
    with pytest.raises(LayoutError, match=r"class is \d, but must be one of the 3 classes"):
        table("stanford_cars", tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("class", "x", r"annotations\(2\).class is 'x', but must be a whole number"),
        ("class", 1.5, r"annotations\(2\).class is 1.5, but must be a whole number"),
        ("class", np.array([]), r"annotations\(2\).class is empty"),
        ("class", np.array([1, 2]), r"annotations\(2\).class is 2 values"),
        ("class", 0, r"annotations\(2\).class is 0, but must be one of the 6 classes"),
        ("relative_im_path", "", r"annotations\(2\).relative_im_path is empty"),
        ("relative_im_path", 7, r"annotations\(2\).relative_im_path is 7, but must be a name"),
        ("test", 2, r"annotations\(2\).test is 2, but must be 0 .train. or 1 .test."),
    ],
)
def test_an_odd_entry_is_named(tmp_path: Path, field: str, value: object, said: str) -> None:
    path = trees.car_ims(tmp_path) / "cars_annos.mat"
    variables = scipy.io.loadmat(path)
    variables["annotations"][field][0, 1] = value
    trees.mat(path, **{name: variables[name] for name in ("annotations", "class_names")})
    with pytest.raises(LayoutError, match=f"cars_annos.mat: {said}"):
        table("stanford_cars", tmp_path)


def test_annotations_without_an_entry_are_refused(tmp_path: Path) -> None:
    path = trees.cars(tmp_path) / "devkit/cars_train_annos.mat"
    trees.mat(path, annotations=scipy.io.loadmat(path)["annotations"][:, :0])
    with pytest.raises(LayoutError, match="cars_train_annos.mat has no entry in annotations"):
        table("stanford_cars", tmp_path)


def test_whole_numbers_may_be_held_as_floats(tmp_path: Path) -> None:
    path = trees.cars(tmp_path) / "devkit/cars_train_annos.mat"
    annotations = scipy.io.loadmat(path)["annotations"]
    for place in range(annotations.size):
        annotations["class"][0, place] = annotations["class"][0, place].astype(float)
    trees.mat(path, annotations=annotations)
    assert_is_whole(table("stanford_cars", tmp_path))


def test_two_classes_of_one_name_are_not_merged(tmp_path: Path) -> None:
    path = trees.cars(tmp_path) / "devkit/cars_meta.mat"
    names = scipy.io.loadmat(path)["class_names"]
    names[0, 1] = names[0, 0]
    trees.mat(path, class_names=names)
    found = table("stanford_cars", tmp_path)
    assert found.classes[:2] == (f"{trees.CAR_NAMES[0]} (1)", f"{trees.CAR_NAMES[0]} (2)")
    assert any("the same name" in note for note in found.notes)


def test_a_damaged_mat_file_is_named(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    (tmp_path / "devkit/cars_train_annos.mat").write_bytes(b"no MATLAB")
    with pytest.raises(LayoutError, match=r"cars_train_annos.mat is not a readable MATLAB file"):
        table("stanford_cars", tmp_path)


def test_classes_without_images_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    names = np.empty((1, 196), dtype=object)
    names[0, :] = [*trees.CAR_NAMES, *(f"Car {number} 2012" for number in range(190))]
    trees.mat(tmp_path / "devkit/cars_meta.mat", class_names=names)
    reading = read_table("stanford_cars", str(tmp_path))
    assert reading.classes == trees.CAR_NAMES
    assert "190 of 196 classes have no image and are left out" in reading.notes


@pytest.mark.parametrize("split", [True, False])
def test_class_folder_uploads_of_stanford_cars(tmp_path: Path, split: bool) -> None:
    for number, part in enumerate(("train", "test") if split else ("",)):
        trees.class_folders(tmp_path / part, trees.CAR_NAMES[:4], seed=number)
    found = table("stanford_cars", tmp_path)
    assert_is_whole(found)
    assert found.classes == trees.CAR_NAMES[:4]
    assert Counter(found.official) == ({"train": 24, "test": 24} if split else {"": 24})


def test_the_annotations_of_one_packing_do_not_describe_the_other(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    shutil.rmtree(tmp_path / "devkit")
    trees.car_ims(tmp_path / "other")
    (tmp_path / "other/cars_annos.mat").rename(tmp_path / "cars_annos.mat")
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(LayoutError, match="numbers the images of car_ims"):
        find_layout("stanford_cars", tmp_path)
