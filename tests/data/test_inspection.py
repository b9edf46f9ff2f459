from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lmoe_tune.data import inspection as module
from lmoe_tune.data.inspection import inspect, problem_of_lists, refuse_unsound
from lmoe_tune.data.sealed_plan import plan_test, seen_in_training
from lmoe_tune.data.search_plan import plan_search
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Dataset, DataSpec
from tests.data import trees


@pytest.fixture(autouse=True)
def a_few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """These sets are small, so that they are read quickly: that alone is no finding."""
    monkeypatch.setattr(module, "FEW_IMAGES", 1)


@pytest.fixture
def cars(tmp_path: Path) -> DataSpec:
    """Stanford Cars against WebVision, with FGVC-Aircraft sealed."""
    trees.cars(tmp_path / "cars")
    trees.webvision(tmp_path / "web")
    trees.aircraft(tmp_path / "planes", per_class=2)
    return DataSpec(
        id=Dataset(dataset="stanford_cars", root=str(tmp_path / "cars")),
        outliers=Dataset(dataset="webvision", root=str(tmp_path / "web"), limit=50),
        coarse_ood=(Dataset(dataset="fgvc_aircraft", root=str(tmp_path / "planes")),),
    )


def test_what_is_there_is_counted(cars: DataSpec, tmp_path: Path) -> None:
    found = inspect(cars, tmp_path / "home").document()
    assert {key: found["id"][key] for key in ("layout", "classes", "images")} == {
        "layout": "cars_train, cars_test and devkit",
        "classes": 6,
        "images": 60,
    }
    assert found["outliers"]["images"] == 50
    assert found["coarse_ood"]["images"] == 36
    assert found["problems"] == []
    sizes = {name: part["images"] for name, part in found["splits"].items()}
    pools = [sizes[name] for name in ("outliers", "val_coarse", "test_outliers")]
    assert sum(pools) == 50 and all(pools)
    # of 6 classes round(.75 * 6) = 4 are in-distribution, one of them held out; a fifth of 5 images a class is 1
    assert found["splits"] == {
        "train": {"classes": 3, "images": 12},
        "val": {"classes": 3, "images": 3},
        "val_fine": {"classes": 1, "images": 5},
        "outliers": {"classes": found["splits"]["outliers"]["classes"], "images": pools[0]},
        "val_coarse": {"classes": found["splits"]["val_coarse"]["classes"], "images": pools[1]},
        "test": {"classes": 4, "images": 20},
        "test_fine": {"classes": 2, "images": 10},
        "test_outliers": {
            "classes": found["splits"]["test_outliers"]["classes"],
            "images": pools[2],
        },
        "test_coarse": {"classes": 6, "images": 36},
    }
    assert found["outliers"]["excluded"] == ["n04285008 sports car, sport car"]
    assert found["id"]["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "cars").rglob("*.jpg")
    )
    assert found["id"]["median_pixels"] == [48, 40]
    assert found["fingerprint"] == plan_search(cars, tmp_path / "home").fingerprint


def test_parts_with_a_few_images_are_a_warning(
    cars: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW_IMAGES", 6)
    found = inspect(cars, tmp_path / "home")

    assert not found.stops
    said = [(problem.where, problem.what) for problem in found.problems]
    assert ("data.id", "3 images for val, so its metrics say next to nothing") in said
    assert ("data.id", "5 images for val_fine, so its metrics say next to nothing") in said
    assert not any("for test," in what for _, what in said), "it has 20"


def test_a_second_inspection_reads_no_image(
    cars: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmoe_tune.data import digests, leaks

    first = inspect(cars, tmp_path / "home")
    monkeypatch.setattr(digests, "_examine", lambda path: pytest.fail(f"{path} was read again"))
    for name in ("copies_between", "copies_within"):
        monkeypatch.setattr(leaks, name, lambda *sets: pytest.fail("looked for copies again"))
    assert inspect(cars, tmp_path / "home") == first


def test_images_of_every_kind_are_read(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("ant", "bee", "cat", "dog"), per_class=8)
    image = trees.picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "grey.jpg": (image.convert("L"), {}),
        "print.jpg": (trees.picture(2).convert("CMYK"), {}),
        "palette.png": (trees.picture(3).convert("P"), {}),
        "alpha.png": (trees.picture(4).convert("RGBA"), {}),
        "turned.jpg": (trees.picture(5), {"exif": exif}),
        "deep.png": (
            Image.fromarray(np.asarray(trees.picture(6).convert("L")).astype(np.uint16) * 257),
            {},
        ),
        "bits.png": (trees.picture(7).convert("1"), {}),
        "moving.gif": (trees.picture(8).convert("P"), {}),
        "odd.JPEG": (trees.picture(9), {"format": "JPEG"}),
        "really_a_png.jpg": (trees.picture(10), {"format": "PNG", "quality": None}),
        "progressive.jpg": (trees.picture(11), {"progressive": True}),
        "many.tiff": (trees.picture(12), {}),
    }
    for name, (kind, options) in kinds.items():
        kept = {key: value for key, value in options.items() if value is not None}
        (tmp_path / "ant").mkdir(exist_ok=True)
        kind.save(tmp_path / "ant" / name, **kept)
    found = inspect(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path))), tmp_path / "home")
    assert found.id["images"] == 32 + len(kinds)
    assert not found.problems


def test_broken_files_are_named_with_what_is_wrong(cars: DataSpec, tmp_path: Path) -> None:
    folder = tmp_path / "cars/cars_train"
    (folder / "00001.jpg").write_bytes(b"")
    (folder / "00002.jpg").write_bytes((folder / "00002.jpg").read_bytes()[:500])
    (folder / "00003.jpg").write_text("<html>not found</html>", encoding="utf-8")
    (folder / "00004.jpg").unlink()
    found = inspect(cars, tmp_path / "home")
    (problem,) = found.problems
    assert not problem.stops and problem.where == "data.id"
    for name, why in (
        ("00001", "is empty"),
        ("00002", "cannot be decoded"),
        ("00003", "is not an image"),
        ("00004", "not there"),
    ):
        assert f"{name}.jpg {why}" in problem.what.replace("is listed, but ", "")
    assert found.id["images"] == 56
    refusing = inspect(cars.model_copy(update={"corrupt": "refuse"}), tmp_path / "home")
    assert refusing.stops and "set data.corrupt to skip" in refusing.problems[0].fix


def test_a_pipe_and_a_device_named_like_images_are_broken_and_waited_for_by_nobody(
    cars: DataSpec, tmp_path: Path
) -> None:
    for number, put in (
        (1, os.mkfifo),
        (2, lambda path: os.symlink("/dev/zero", path)),
        (3, lambda path: os.symlink(path.name, path)),
    ):
        path = tmp_path / f"cars/cars_train/{number:05d}.jpg"
        path.unlink()
        put(path)

    (problem,) = inspect(cars, tmp_path / "home").problems

    assert not problem.stops
    assert problem.what.count("is not a regular file") == 2


def test_an_image_in_two_classes_is_said_to_contradict(cars: DataSpec, tmp_path: Path) -> None:
    root = trees.class_folders(tmp_path / "mine", tuple("abcdefgh"), per_class=8)
    first, second = sorted((root / "a").iterdir())[0], root / "b" / "copy.png"
    shutil.copy(first, second)
    id_ = cars.id.model_copy(update={"dataset": "folder", "root": str(root)})

    found = inspect(cars.model_copy(update={"id": id_}), tmp_path / "home")

    (said,) = [one.what for one in found.problems if "appear twice" in one.what]
    assert "1 of them in two classes, so that one label is wrong" in said


def test_a_leak_is_a_problem_that_its_fix_mends(cars: DataSpec, tmp_path: Path) -> None:
    trees.save(
        tmp_path / "web/google/q0001/0abc.jpg",
        Image.open(tmp_path / "cars/cars_test/00003.jpg"),
        quality=70,
    )
    shutil.copy(tmp_path / "cars/cars_train/00004.jpg", tmp_path / "web/google/q0001/1abc.jpg")
    whole = cars.model_copy(
        update={"outliers": cars.outliers and cars.outliers.model_copy(update={"limit": None})}
    )
    found = inspect(whole, tmp_path / "home")
    (problem,) = found.problems
    assert found.stops and problem.where == "data.outliers"
    assert "google/q0001/0abc.jpg is cars_test/00003.jpg (a copy, encoded again)" in problem.what
    assert "google/q0001/1abc.jpg is cars_train/00004.jpg (the same bytes)" in problem.what
    with pytest.raises(
        UsageError,
        match=r"the data cannot be searched on:\ndata.outliers: 2 images in common with the in-distribution images",
    ):
        refuse_unsound(whole, tmp_path / "home")
    listed = problem.fix.split("[")[1].split("]")[0]
    assert whole.outliers is not None
    mended = whole.model_copy(
        update={"outliers": whole.outliers.model_copy(update={"exclude": (listed,)})}
    )
    assert not inspect(mended, tmp_path / "home").stops


def test_leaks_into_the_sealed_coarse_set_are_found(cars: DataSpec, tmp_path: Path) -> None:
    plane = tmp_path / "planes/data/images/0000005.jpg"
    shutil.copy(plane, tmp_path / "web/google/q0001/0abc.jpg")
    shutil.copy(tmp_path / "cars/cars_test/00007.jpg", tmp_path / "planes/data/images/0000006.jpg")
    whole = cars.model_copy(
        update={"outliers": cars.outliers and cars.outliers.model_copy(update={"limit": None})}
    )
    found = inspect(whole, tmp_path / "home")
    assert [(problem.where, problem.stops) for problem in found.problems] == [
        ("data.coarse_ood.0", True)
    ] * 2
    assert (
        "in common with the in-distribution images: data/images/0000006.jpg"
        in found.problems[0].what
    )
    assert (
        "in common with the outliers: data/images/0000005.jpg is google/q0001/0abc.jpg"
        in found.problems[1].what
    )


def test_an_in_distribution_class_in_the_outliers_is_a_problem(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "id", ("red_fox", "grey_wolf", "brown_bear", "lynx"))
    trees.class_folders(tmp_path / "out", ("Red Fox", "chair"), seed=3)
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "out")),
    )
    (problem,) = inspect(data, tmp_path / "home").problems
    assert problem.stops and problem.fix == "leave them out with exclude: [Red Fox]"


def test_duplicates_are_said_and_do_not_stop(cars: DataSpec, tmp_path: Path) -> None:
    folder = tmp_path / "cars/cars_train"
    shutil.copy(folder / "00001.jpg", folder / "00002.jpg")
    found = inspect(cars, tmp_path / "home")
    (problem,) = found.problems
    assert not problem.stops and "cars_train/00002.jpg is cars_train/00001.jpg" in problem.what
    assert (found.id["images"], found.id["duplicates"]) == (59, 1)


def test_every_wrong_folder_is_reported_at_once(cars: DataSpec, tmp_path: Path) -> None:
    wrong = cars.model_copy(
        update={
            "id": Dataset(dataset="stanford_cars", root=str(tmp_path / "planes")),
            "coarse_ood": (Dataset(dataset="fgvc_aircraft", root=str(tmp_path / "nowhere")),),
        }
    )
    found = inspect(wrong, tmp_path / "home")
    assert [problem.where for problem in found.problems] == [
        "data.id.root",
        "data.coarse_ood.0.root",
    ]
    assert "is FGVC-Aircraft, not Stanford Cars" in found.problems[0].what
    assert found.stops and found.splits == {} and found.document()["id"]["images"] == 0


def test_too_few_images_are_a_problem_with_a_fix(tmp_path: Path) -> None:
    data = DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id")))
    trees.class_folders(tmp_path / "id", ("ant", "bee", "cat"), per_class=1)
    (problem,) = inspect(data, tmp_path / "home").problems
    assert problem.stops and problem.where == "data" and "set data.num_id_classes" in problem.fix
    trees.class_folders(tmp_path / "id", ("dog",), per_class=1, seed=1)
    (problem,) = inspect(data, tmp_path / "home").problems
    assert problem.stops and problem.where == "data.id" and "add images" in problem.fix


@pytest.mark.parametrize("outliers", ["photo_china", None])
def test_digits_are_inspected_as_well(tmp_path: Path, outliers: Any) -> None:
    data = DataSpec(
        id=Dataset(dataset="digits"),
        outliers=Dataset(dataset=outliers) if outliers else None,
        coarse_ood=(Dataset(dataset="photo_flower"),),
    )
    found = inspect(data, tmp_path / "home").document()
    assert (found["id"]["classes"], found["id"]["images"]) == (10, 1797)
    assert found["splits"]["train"]["classes"] == 5 and found["splits"]["test_fine"]["classes"] == 3
    assert found["coarse_ood"]["images"] > 0
    assert not (tmp_path / "home").exists()


def test_a_split_that_the_digits_cannot_give_is_a_problem(tmp_path: Path) -> None:
    data = DataSpec(id=Dataset(dataset="digits"), num_id_classes=11)
    (problem,) = inspect(data, tmp_path / "home").problems
    assert problem.stops and "num_id_classes is 11" in problem.what


def test_digits_without_a_sealed_class_are_said_to_have_none(tmp_path: Path) -> None:
    data = DataSpec(id=Dataset(dataset="digits"), num_id_classes=10)
    (problem,) = inspect(data, tmp_path / "home").problems
    assert not problem.stops and problem.what == "no image is left for test_fine"


def test_what_a_reader_left_out_is_a_warning_that_a_search_gives_too(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("ant", "bee", "cat", "dog"))
    (tmp_path / "elk").mkdir()
    data = DataSpec(id=Dataset(dataset="folder", root=str(tmp_path)))
    said: list[str] = []
    home = tmp_path.with_name("home")
    refuse_unsound(data, home, warn=said.append)
    (problem,) = inspect(data, home).problems
    assert said == [f"warning: {problem}"], "a search warns of it"
    assert not problem.stops and problem.where == "data.id"
    assert problem.what == "folders without an image are left out: elk"


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"num_val_novel": 7}, "data"),
        ({"id": Dataset(dataset="digits", limit=1)}, "data.id.limit"),
        ({"id": Dataset(dataset="cub200", root="{root}/cub")}, "data.id.root"),
        ({"id": Dataset(dataset="folder", root="{root}/own", limit=3)}, "data.id"),
        ({"id": Dataset(dataset="folder", root="{root}/own")}, None),
    ],
)
def test_what_names_and_lists_show_is_found_without_opening_an_image(
    tmp_path: Path, settings: dict[str, Any], where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmoe_tune.data import digests

    trees.text(trees.cub(tmp_path / "cub") / "train_test_split.txt", ["1 train"])
    trees.class_folders(tmp_path / "own")
    monkeypatch.setattr(digests, "_examine", lambda path: pytest.fail(f"{path} was opened"))
    settings = {"id": Dataset(dataset="digits")} | settings
    root = settings["id"].root
    if root is not None:
        update = {"root": root.format(root=tmp_path)}
        settings["id"] = settings["id"].model_copy(update=update)

    problem = problem_of_lists(DataSpec(**settings))
    assert (problem and problem.where) == where


def test_a_class_in_two_unicode_forms_is_in_both_sets(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    trees.class_folders(tmp_path / "id", (forms[0], "bar", "pub"))
    trees.class_folders(tmp_path / "out", (forms[1], "tree"), seed=1)
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "out")),
    )
    found = inspect(data, tmp_path / "home")
    assert found.stops
    assert "1 class in common with the in-distribution set: café" in found.problems[0].what


def test_leaks_of_files_with_odd_names_are_listed_so_that_they_can_be_left_out(
    tmp_path: Path,
) -> None:
    trees.class_folders(tmp_path / "id")
    trees.class_folders(tmp_path / "out", ("house", "tree"), seed=1)
    odd = [os.fsdecode(b"caf\xe9.jpg"), " blank.jpg", "two\nlines.jpg", '"quoted".jpg', "tab\t.jpg"]
    for place, name in enumerate(odd):
        shutil.copy(tmp_path / f"id/ant/img {place}.jpg", tmp_path / "out" / "house" / name)
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "out")),
    )
    for _ in range(2):  # the second one reads what the first has written
        (problem,) = inspect(data, tmp_path / "home").problems
        assert "5 images in common with the in-distribution images" in problem.what
        str(problem).encode()

    listed = problem.fix.partition("[")[2].partition("]")[0]
    cured = data.model_copy(
        update={"outliers": data.outliers.model_copy(update={"exclude": (listed,)})}
    )
    assert not inspect(cured, tmp_path / "home").problems


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("huose/img 3.jpg", "huose/img 3.jpg (nearest: house/img 3.jpg)"),
        ("{folder}/list.txt", "list.txt is empty"),
    ],
)
def test_what_leaves_nothing_out_is_said(tmp_path: Path, entry: str, said: str) -> None:
    trees.class_folders(tmp_path / "id")
    trees.class_folders(tmp_path / "out", ("house", "tree"), per_class=20, seed=1)
    (tmp_path / "list.txt").write_text("\n", encoding="utf-8")
    outliers = Dataset(
        dataset="folder",
        root=str(tmp_path / "out"),
        exclude=(entry.format(folder=tmp_path),),
    )
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "id")),
        outliers=outliers,
    )
    found = inspect(data, tmp_path / "home")
    (problem,) = found.problems
    assert problem.where == "data.outliers.exclude" and not problem.stops
    assert said in problem.what


def test_near_duplicates_across_the_parts_are_reported_and_never_refused(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "id/train", per_class=10)
    trees.class_folders(tmp_path / "id/test", per_class=5, seed=1)
    original = Image.open(tmp_path / "id/train/ant/img 3.jpg")
    trees.save(tmp_path / "id/test/bee/copy.jpg", ImageOps.mirror(original))
    trees.save(tmp_path / "id/test/bee/again.png", original.resize((96, 80)))
    data = DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id")))
    found = inspect(data, tmp_path / "home")
    assert not found.stops

    (problem,) = found.problems
    assert "near-duplicates lie across the parts of the split" in problem.what
    document = json.loads(json.dumps(found.document()))["near_duplicates"]
    assert document["pairs"] == 2 == len(document["list"])
    assert document["test_images"] == 2
    assert sum(document["across"].values()) >= 1
    assert {pair["how"] for pair in document["list"]} <= {
        "a mirrored copy",
        "a copy, encoded again",
    }


def test_the_test_images_that_a_network_has_seen_are_known(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("a1b", "c2d", "e3f", "g4h"), per_class=10)
    trees.class_folders(tmp_path / "test", ("a1b", "c2d", "e3f", "g4h"), per_class=5, seed=1)
    data = DataSpec(id=Dataset(dataset="folder", root=str(tmp_path)))
    assert not any(mask.any() for mask in seen_in_training(data).values())

    sealed = plan_test(data)
    trained, tested = sealed.train.files()[0], sealed.test.files()[1]
    ImageOps.mirror(Image.open(trained)).save(tested, quality=95)
    novel = sealed.test_fine.files()[2]
    Image.open(sealed.val.files()[0]).resize((96, 80)).save(novel)

    seen = seen_in_training(data, tmp_path / "home")
    assert np.flatnonzero(seen["id"]).tolist() == [1] and len(seen["id"]) == len(sealed.test)
    assert np.flatnonzero(seen["fine"]).tolist() == [2]
    assert len(seen["fine"]) == len(sealed.test_fine)
    assert seen_in_training(DataSpec(id=Dataset(dataset="digits"))) == {}


def test_coarse_images_to_validate_with_may_be_a_set_of_their_own(
    cars: DataSpec, tmp_path: Path
) -> None:
    trees.class_folders(tmp_path / "val", ("pot", "pan"), per_class=9, seed=3)
    assert any("val_coarse metrics are higher" in note for note in inspect(cars, tmp_path).notes)

    own = Dataset(dataset="folder", root=str(tmp_path / "val"))
    found = inspect(cars.model_copy(update={"val_coarse": own}), tmp_path / "home")
    assert not found.problems
    assert not any("val_coarse metrics are higher" in note for note in found.notes)
    assert found.splits["val_coarse"] == {"classes": 2, "images": 18}
    assert found.document()["val_coarse"]["images"] == 18
    assert found.splits["outliers"] == inspect(cars, tmp_path).splits["outliers"]


def test_coarse_images_to_validate_with_are_in_no_other_set(cars: DataSpec, tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "val", ("pot", "pan"), per_class=9, seed=3)
    for place, path in enumerate(("cars/cars_test/00003.jpg", "web/google/q0003/0abc.jpg")):
        shutil.copy(tmp_path / path, tmp_path / f"val/pot/{place}.jpg")
    shutil.copy(tmp_path / "val/pan/img 0.jpg", tmp_path / "planes/data/images/0000001.jpg")

    own = Dataset(dataset="folder", root=str(tmp_path / "val"))
    outliers = cars.outliers
    assert outliers is not None
    data = cars.model_copy(
        update={"val_coarse": own, "outliers": outliers.model_copy(update={"limit": None})}
    )
    problems = [problem for problem in inspect(data, tmp_path / "home").problems if problem.stops]
    assert [(problem.where, problem.what.split(":")[0]) for problem in problems] == [
        ("data.val_coarse", "1 image in common with the in-distribution images"),
        ("data.val_coarse", "1 image in common with the outliers"),
        ("data.coarse_ood.0", "1 image in common with the images of data.val_coarse"),
    ]


def test_what_pre_training_has_seen_is_said(cars: DataSpec, tmp_path: Path) -> None:
    notes = inspect(cars, tmp_path / "home").notes
    assert any("ImageNet have seen photographs of cars" in note for note in notes)
