"""Stanford Cars (Krause et al. 2013): 196 car models, 8,144 training and 8,041 test images.

Source of the layouts: the original archives (devkit), the older single archive (car_ims),
torchvision's expectations, and common mirrors. Labels in the files count from 1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.files import has_images, present
from lmoe_tune.readers.layout import Entry, Kind, Layout, LayoutError, Reader, Reading
from lmoe_tune.readers.matlab import ORIGINAL, numbers, read_mat, strings, texts
from lmoe_tune.readers.names import path_key
from lmoe_tune.readers.reading import make_reading, told_apart

DEVKITS = ("devkit", "car_devkit/devkit", "car_devkit", "devkit/devkit", ".")
PARTS = {0: "train", 1: "test"}  # what the column `test` holds
TRAIN, META, TEST = "cars_train_annos.mat", "cars_meta.mat", "cars_test_annos_withlabels"


def _devkit(root: Path) -> Path | None:
    return next((root / name for name in DEVKITS if (root / name / TRAIN).exists()), None)


def _images(root: Path, name: str) -> str | None:
    """Where the images of `cars_train` are: the usual mirror nests it inside itself."""
    there = [folder for folder in (f"{name}/{name}", name) if (root / folder).is_dir()]
    filled = [folder for folder in there if has_images(root / folder)]
    return next(iter([*filled, *reversed(there)]), None)


def _test_labels(root: Path) -> Path | None:
    for folder in (root, *(root / name for name in DEVKITS)):
        for path in sorted(folder.glob(f"{TEST}*.mat")):
            return path
    return None


def _read_devkit(root: Path) -> Reading:
    devkit = _devkit(root)
    assert devkit is not None, "not the layout that was recognised"
    meta = devkit / META
    classes, notes = _class_names(meta, read_mat(meta))

    train_folder, test_folder = _images(root, "cars_train"), _images(root, "cars_test")
    assert train_folder is not None, "not the layout that was recognised"
    test_labels = _test_labels(root)
    official = "train"
    entries = []
    if test_folder is not None and test_labels is not None:
        entries = _annotated(test_labels, classes, test_folder, "test")
    else:
        lacking = "cars_test"
        if test_labels is None:
            lacking = f"{TEST}.mat"
        official = ""
        notes.append(
            f"there is no {lacking}, so the official test images are left out, and the training "
            "images are split 60 / 20 / 20% into train, val and test"
        )

    entries += _annotated(devkit / TRAIN, classes, train_folder, official)
    found, absent = present(root, entries)
    return make_reading(found, classes=classes, absent=absent, notes=notes)


def _annotated(path: Path, classes: list[str], folder: str, official: str) -> list[Entry]:
    variables = read_mat(path)
    names = texts(path, variables, "fname", "relative_im_path")
    return [
        Entry(f"{folder}/{_file_name(name)}", label, official)
        for name, label in zip(names, _labels(path, variables, classes), strict=True)
    ]


def _file_name(path: str) -> str:
    return path_key(path).rpartition("/")[2]


def _class_names(path: Path, variables: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the classes, and notes on them."""
    if "class_names" not in variables:
        raise LayoutError(f"{path} has no class_names", ORIGINAL)

    names = strings(variables["class_names"])
    name_of, notes = told_apart({str(id_): name for id_, name in enumerate(names, start=1)})
    return list(name_of.values()), notes


def _labels(path: Path, variables: dict[str, Any], classes: list[str]) -> list[str]:
    """The class of every image."""
    must_be = f"one of the {len(classes)} classes, counted from 1"
    return _named(path, variables, "class", dict(enumerate(classes, start=1)), must_be)


def _named(
    path: Path, variables: dict[str, Any], field: str, names: dict[int, str], must_be: str
) -> list[str]:
    """What the numbers in a field of the annotations mean."""
    found = numbers(path, variables, field)
    for entry, number in enumerate(found, start=1):
        if number not in names:
            raise LayoutError(
                f"{path}: annotations({entry}).{field} is {number}, but must be {must_be}", ORIGINAL
            )
    return [names[number] for number in found]


def _read_car_ims(root: Path) -> Reading:
    path = root / "cars_annos.mat"
    variables = read_mat(path)
    classes, notes = _class_names(path, variables)
    names = texts(path, variables, "relative_im_path", "fname")
    labels = _labels(path, variables, classes)
    parts = _named(path, variables, "test", PARTS, "0 (train) or 1 (test)")

    folder = _images(root, "car_ims")
    entries = [
        Entry(f"{folder}/{_file_name(name)}", label, part)
        for name, label, part in zip(names, labels, parts, strict=True)
    ]
    found, absent = present(root, entries)
    return make_reading(found, classes=classes, absent=absent, notes=notes)


def _is_devkit(root: Path) -> bool:
    devkit = _devkit(root)
    return (
        devkit is not None and (devkit / META).exists() and _images(root, "cars_train") is not None
    )


def _is_mixture(root: Path) -> bool:
    return (
        (root / "cars_annos.mat").exists()
        and (root / "cars_train").is_dir()
        and not (root / "car_ims").exists()
    )


READER = Reader(
    title="Stanford Cars",
    layouts=(
        Layout(
            "cars_train, cars_test and devkit",
            ("cars_train", "cars_test", f"devkit/{META}", f"devkit/{TRAIN}", f"{TEST}.mat"),
            _read_devkit,
            _is_devkit,
        ),
        Layout("car_ims and cars_annos.mat", ("car_ims", "cars_annos.mat"), _read_car_ims),
        Layout(
            "cars_train with the annotations of car_ims",
            ("cars_train", "cars_annos.mat"),
            _read_devkit,
            _is_mixture,
            fix="cars_annos.mat numbers the images of car_ims, in another order than those of "
            "cars_train: put car_devkit.tgz's devkit/ beside cars_train, and "
            "cars_test_annos_withlabels.mat beside devkit",
        ),
        *CLASS_FOLDERS,
    ),
    source="unpack cars_train.tgz, cars_test.tgz and car_devkit.tgz from a mirror, with "
    "cars_test_annos_withlabels.mat beside them (the original host is gone, torchvision cannot "
    "download it)",
    num_classes=196,
    num_id_classes=150,
    parts=("train", "test"),
    resize=512,
    crop=448,
    shows=Kind(
        "cars",
        (
            "car", "cars", "automobile", "motorcar", "auto", "cab", "taxi", "taxicab", "hack",
            "convertible", "jeep", "landrover", "limousine", "limo", "minivan", "van", "minibus",
            "model t", "pickup", "ambulance", "truck", "lorry", "wagon", "waggon", "station wagon",
            "racer", "roadster", "sedan", "coupe", "hatchback", "suv", "recreational vehicle", "rv",
            "camper", "motor vehicle", "grille", "fire engine", "snowplow", "snowplough", "go kart",
            "tow car", "garbage truck", "dustcart", "half track",
        )
    ),
    class_folder=re.compile(r".*\D(19|20)\d\d$"),
)  # fmt: skip
