from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from lmoe_tune.data.table import ImageTable, read_table
from lmoe_tune.readers import READERS, LayoutError
from lmoe_tune.readers.recognition import find_layout
from tests.data import trees


def table(dataset: str, root: Path) -> ImageTable:
    return read_table(dataset, str(root))


def class_of(found: ImageTable, path: str) -> str:
    return found.classes[found.labels[found.paths.index(path)]]


def assert_is_whole(found: ImageTable) -> None:
    """Every path is there, in a fixed order, and every class has an image."""
    assert list(found.paths) == sorted(set(found.paths))
    assert all((found.root / path).is_file() for path in found.paths)
    assert len(found.labels) == len(found.official) == len(found.paths)
    assert found.labels.dtype == np.int64
    assert set(found.labels.tolist()) - {-1} == set(range(len(found.classes)))
    assert set(found.official) <= {"train", "val", "test", ""}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("devkit", ["devkit", "car_devkit/devkit"])
@pytest.mark.parametrize("labelled", ["", "devkit"])
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
    with pytest.raises(LayoutError, match=r"has the class \d, but there are 3 class names"):
        table("stanford_cars", tmp_path)


def test_a_damaged_mat_file_is_named(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    (tmp_path / "devkit/cars_train_annos.mat").write_bytes(b"no MATLAB")
    with pytest.raises(LayoutError, match=r"cars_train_annos.mat is no MATLAB file"):
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


@pytest.mark.parametrize("root", ["", "data"])
def test_fgvc_aircraft(tmp_path: Path, root: str) -> None:
    found = table("fgvc_aircraft", trees.aircraft(tmp_path) / root)
    assert_is_whole(found)
    assert (
        found.classes == trees.VARIANTS
    )  # names with blanks and slashes, in the order of variants.txt
    assert Counter(found.official) == {"train": 24, "val": 24, "test": 24}
    assert found.crop_bottom == 20


def test_fgvc_aircraft_with_trainval_only(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"data/images_variant_{part}.txt").unlink()
    reading = read_table("fgvc_aircraft", str(tmp_path))
    assert Counter(reading.official) == {"train": 48, "test": 24}
    assert reading.notes


def test_nabirds_ids_have_gaps(tmp_path: Path) -> None:
    found = table("nabirds", trees.nabirds(tmp_path))
    assert_is_whole(found)
    assert found.classes == tuple(f"Bird No. {id_} (Adult male)" for id_ in (77, 295, 313, 1010))
    assert {
        path.split("/")[1]
        for path, label in zip(found.paths, found.labels, strict=True)
        if label == 3
    } == {"1010"}
    assert Counter(found.official) == {"train": 12, "test": 12}


def test_cub(tmp_path: Path) -> None:
    found = table("cub200", trees.cub(tmp_path))
    assert_is_whole(found)
    assert found.classes == tuple(f"{number:03d}.Some_Bird_{number}" for number in range(1, 5))
    assert Counter(found.official) == {"train": 12, "test": 12}


def test_lists_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n", encoding="utf-8")
    with pytest.raises(
        LayoutError, match=r"image_class_labels.txt lacks the image 2 of images.txt"
    ):
        table("cub200", tmp_path)


@pytest.mark.parametrize("lists", [True, False])
def test_butterfly_200(tmp_path: Path, lists: bool) -> None:
    reading = read_table("butterfly200", str(trees.butterflies(tmp_path, lists=lists)))
    found = reading
    assert_is_whole(found)
    assert found.classes == tuple(f"{n:03d}.Genus_species{n}" for n in (1, 2, 10, 139))
    assert Counter(found.official) == ({"train": 8, "val": 8, "test": 8} if lists else {"": 24})
    assert bool(reading.notes) is not lists


def test_butterfly_folders_without_leading_zeros_keep_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    for number in (1, 2, 10, 100):
        trees.save(
            tmp_path / "images_small" / f"{number}.Some_name" / "001.jpg", trees.picture(number)
        )
    assert [name.split(".")[0] for name in table("butterfly200", tmp_path).classes] == [
        "1",
        "2",
        "10",
        "100",
    ]


@pytest.mark.parametrize("lists", [True, False])
def test_webvision_folders_are_queries_for_synsets(tmp_path: Path, lists: bool) -> None:
    found = table("webvision", trees.webvision(tmp_path, lists=lists))
    assert_is_whole(found)
    assert found.classes == trees.SYNSETS
    assert len(found) == 16 * 6 + 8 * 6
    assert (
        class_of(found, "google/q0001/0abc.jpg")
        == class_of(found, "google/q0002/0abc.jpg")
        == trees.SYNSETS[0]
    )
    assert class_of(found, "flickr/q0015/0abc.jpg") == trees.SYNSETS[7]


def test_a_part_of_webvision_is_enough(tmp_path: Path) -> None:
    trees.webvision(tmp_path)
    shutil.rmtree(tmp_path / "flickr")
    for query in range(3, 17):
        shutil.rmtree(tmp_path / "google" / f"q{query:04d}")
    reading = read_table("webvision", str(tmp_path))
    assert_is_whole(reading)
    assert reading.classes == trees.SYNSETS[:1]
    assert not reading.absent  # the folders that are not there are no loss
    assert any("no flickr/" in note for note in reading.notes)


def test_files_that_a_list_names_and_that_are_not_there_are_reported(tmp_path: Path) -> None:
    trees.webvision(tmp_path)
    (tmp_path / "google/q0001/0abc.jpg").unlink()
    assert read_table("webvision", str(tmp_path)).absent == ("google/q0001/0abc.jpg",)


def test_a_listed_file_is_found_in_another_case_or_suffix(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    folder = tmp_path / "images/001.Some_Bird_1"
    (folder / "Some_Bird_0000.jpg").rename(folder / "Some_Bird_0000.JPG")
    (folder / "Some_Bird_0001.jpg").rename(folder / "Some_Bird_0001.jpeg")
    found = read_table("cub200", str(tmp_path))
    assert not found.absent
    assert_is_whole(found)


def test_class_folders(tmp_path: Path) -> None:
    found = table("folder", trees.class_folders(tmp_path, ("b", "a", "C", "with blank")))
    assert_is_whole(found)
    assert found.classes == ("C", "a", "b", "with blank")
    assert set(found.official) == {""}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "valid", "TEST"), ("train", "validation")]
)
def test_split_folders_in_all_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        trees.class_folders(tmp_path / name, per_class=2, seed=number)
    found = table("folder", tmp_path)
    assert_is_whole(found)
    assert found.classes == ("ant", "bee", "cat", "dog")
    assert Counter(found.official) == dict.fromkeys(("train", "val", "test")[: len(names)], 8)


def test_what_is_no_class_folder_is_ignored_and_said(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("ant", "bee"))
    for name in (".hidden", "__MACOSX", "@eaDir"):
        trees.save(tmp_path / name / "x.jpg")
    (tmp_path / "empty").mkdir()
    trees.save(tmp_path / "ant" / "._img 0.jpg")
    (tmp_path / "ant" / "Thumbs.db").write_text("", encoding="utf-8")
    trees.save(tmp_path / "ant" / "UPPER.JPEG")
    trees.save(tmp_path / "bee" / "more" / "deep.png")
    trees.save(tmp_path / "stray.jpg")
    reading = read_table("folder", str(tmp_path))
    assert_is_whole(reading)
    assert reading.classes == ("ant", "bee")
    assert len(reading) == 14
    assert "ant/UPPER.JPEG" in reading.paths and "bee/more/deep.png" in reading.paths
    said = " ".join(reading.notes)
    assert "empty" in said and "ant/Thumbs.db" in said and "images directly in" in said
    assert "hidden" not in said


def test_a_class_of_the_test_folder_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("ant", "bee"))
    trees.class_folders(tmp_path / "test", ("ant", "wasp"), seed=1)
    with pytest.raises(LayoutError, match="that train has not: wasp"):
        table("folder", tmp_path)


def test_an_unlabelled_test_folder_is_left_out_and_said(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("ant", "bee"))
    trees.save(tmp_path / "test" / "1.jpg")
    reading = read_table("folder", str(tmp_path))
    assert Counter(reading.official) == {"train": 12}
    assert any("test/ have no class folders" in note for note in reading.notes)


def test_outliers_may_be_any_images(tmp_path: Path) -> None:
    for name in ("1.jpg", "deep/er/2.png", "deep/3.JPG"):
        trees.save(tmp_path / name)
    found = read_table("folder", str(tmp_path), labelled=False)
    assert found.paths == ("1.jpg", "deep/3.JPG", "deep/er/2.png")
    assert found.classes == ("deep",)
    assert found.labels.tolist() == [-1, 0, 0]


ON_DISK = [name for name, reader in READERS.items() if not reader.is_embedded]
BUILDERS = {
    "stanford_cars": trees.cars,
    "fgvc_aircraft": trees.aircraft,
    "nabirds": trees.nabirds,
    "cub200": trees.cub,
    "butterfly200": trees.butterflies,
    "webvision": trees.webvision,
}


@pytest.mark.parametrize("there", BUILDERS)
@pytest.mark.parametrize("wanted", ON_DISK)
def test_a_set_that_is_another_one_is_told_from_all_others(
    tmp_path: Path, there: str, wanted: str
) -> None:
    BUILDERS[there](tmp_path / "data" / "here")
    if wanted == there:
        assert (
            find_layout(wanted, tmp_path / "data" / "here").name == READERS[there].layouts[0].name
        )
        return
    with pytest.raises(LayoutError) as caught:
        find_layout(wanted, tmp_path / "data" / "here")
    assert f"set dataset to {there}" in caught.value.fix


@pytest.mark.parametrize("dataset", BUILDERS)
@pytest.mark.parametrize("levels", ["..", "../.."])
def test_a_parent_folder_is_told_with_the_root_to_set(
    tmp_path: Path, dataset: str, levels: str
) -> None:
    root = BUILDERS[dataset](tmp_path / "a" / "b")
    with pytest.raises(LayoutError) as caught:
        find_layout(dataset, (root / levels).resolve())
    assert "deeper: it is a parent folder" in caught.value.what
    assert caught.value.fix == f"set root to {root}"


@pytest.mark.parametrize(
    ("dataset", "inside"),
    [
        ("stanford_cars", "cars_train"),
        ("fgvc_aircraft", "data/images"),
        ("nabirds", "images"),
        ("cub200", "images"),
        ("butterfly200", "images_small"),
        ("webvision", "google"),
    ],
)
def test_a_folder_inside_is_told_with_the_root_to_set(
    tmp_path: Path, dataset: str, inside: str
) -> None:
    root = BUILDERS[dataset](tmp_path / "a")
    with pytest.raises(LayoutError) as caught:
        find_layout(dataset, root / inside)
    assert "is a folder inside" in caught.value.what
    assert caught.value.fix in (f"set root to {root}", f"set root to {root / 'data'}")


def test_a_class_folder_upload_one_level_deeper_is_told(tmp_path: Path) -> None:
    for part in ("train", "test"):
        trees.class_folders(tmp_path / "archive" / part, trees.CAR_NAMES[:3])
    with pytest.raises(LayoutError) as caught:
        find_layout("stanford_cars", tmp_path)
    assert "class-folder re-upload of Stanford Cars one level deeper" in caught.value.what
    assert caught.value.fix == f"set root to {tmp_path / 'archive'}"


def test_class_folders_named_as_those_of_another_set_are_told(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("001.Black_footed_Albatross", "002.Laysan_Albatross"))
    with pytest.raises(LayoutError, match="named as those of Butterfly-200 or CUB-200-2011"):
        find_layout("stanford_cars", tmp_path)


def test_the_annotations_of_one_packing_do_not_describe_the_other(tmp_path: Path) -> None:
    trees.cars(tmp_path)
    shutil.rmtree(tmp_path / "devkit")
    trees.car_ims(tmp_path / "other")
    (tmp_path / "other/cars_annos.mat").rename(tmp_path / "cars_annos.mat")
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(LayoutError, match="numbers the images of car_ims"):
        find_layout("stanford_cars", tmp_path)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("1.jpg", "2.jpg"), "the images lie directly in"),
        (("one/1.jpg", "one/2.jpg"), "images in one folder only"),
        (("x.txt",), "holds no images"),
        (("a/b/1.jpg", "a/c/1.jpg"), "class folders one level deeper"),
    ],
)
def test_folders_that_are_no_class_folders(
    tmp_path: Path, names: tuple[str, ...], what: str
) -> None:
    for name in names:
        if name.endswith(".jpg"):
            trees.save(tmp_path / name)
        else:
            (tmp_path / name).write_text("", encoding="utf-8")
    with pytest.raises(LayoutError, match=what):
        find_layout("folder", tmp_path)
