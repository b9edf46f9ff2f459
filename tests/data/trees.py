"""Small trees of every layout, with rendered images: what the readers' tests read.

Every image is a different one; classes need not look alike.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

CAR_NAMES = (
    "AM General Hummer SUV 2000",
    "Acura RL Sedan 2012",
    "BMW M3 Coupe 2012",
    "Dodge Ram Pickup 3500 Crew Cab 2010",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
)
VARIANTS = ("707-320", "Cessna 172", "DHC-8-100", "Falcon 2000", "F-16A/B", "Yak-42")
SYNSETS = (
    "n01440764 tench, Tinca tinca",
    "n01514668 cock",
    "n02012849 crane",
    "n02279972 monarch, monarch butterfly, milkweed butterfly, Danaus plexippus",
    "n02690373 airliner",
    "n03126707 crane",
    "n04285008 sports car, sport car",
    "n07753592 banana",
)


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A photograph of its own: broad patches of colour with fine detail on them."""
    rng = np.random.default_rng(seed)
    broad = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    detail = rng.normal(0, 12, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(broad) + detail, 0, 255).astype(np.uint8))


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    """An image at a path, its own one where none is given. A locale without such names skips the test."""
    skip_without_names_like(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(zlib.crc32("/".join(path.parts[-3:]).encode())) if image is None else image
    image.save(
        path, **({"quality": 90} if path.suffix.lower() in (".jpg", ".jpeg") else {}) | options
    )
    return path


def skip_without_names_like(name: str) -> None:
    """Skip the test where the locale's encoding has no such names of files."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        pytest.skip(f"names of files cannot hold {error.object[error.start]!a} in this locale")


def text(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def structs(rows: Sequence[dict[str, object]]) -> np.ndarray:
    """A MATLAB struct array (1, N), as the originals hold it."""
    array = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for place, row in enumerate(rows):
        array[0, place] = tuple(row.values())
    return array


def mat(path: Path, **variables: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables)
    return path


def _box() -> dict[str, object]:
    return {
        key: np.uint8(value)
        for key, value in zip(
            ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), (3, 4, 20, 30), strict=True
        )
    }


def _names(names: Sequence[str]) -> np.ndarray:
    cell = np.empty((1, len(names)), dtype=object)
    cell[0, :] = names
    return cell


def cars(
    root: Path,
    *,
    nested: bool = False,
    devkit: str = "devkit",
    labelled_test: str | None = "",
    per_class: int = 5,
) -> Path:
    """Stanford Cars as unpacked: `per_class` training images of each class, and as many test images.

    Images are numbered through, the classes interleaved. `labelled_test` is the folder of the labelled test
    annotations, None leaves them out.
    """
    for part, test in (("train", False), ("test", True)):
        rows = []
        for number in range(per_class * len(CAR_NAMES)):
            name = f"{number + 1:05d}.jpg"
            folder = root / f"cars_{part}" / f"cars_{part}" if nested else root / f"cars_{part}"
            save(folder / name, picture(number + 1000 * test))
            rows.append({**_box(), "class": np.uint8(number % len(CAR_NAMES) + 1), "fname": name})
        if not test:
            mat(root / devkit / "cars_train_annos.mat", annotations=structs(rows))
            continue
        unlabelled = [{key: value for key, value in row.items() if key != "class"} for row in rows]
        mat(root / devkit / "cars_test_annos.mat", annotations=structs(unlabelled))
        if labelled_test is not None:
            mat(root / labelled_test / "cars_test_annos_withlabels.mat", annotations=structs(rows))
    mat(root / devkit / "cars_meta.mat", class_names=_names(CAR_NAMES))
    return root


def car_ims(root: Path, per_class: int = 6) -> Path:
    """The older packing: one folder, sorted by class; every other image of a class is a test image."""
    rows = []
    for number in range(per_class * len(CAR_NAMES)):
        name = f"car_ims/{number + 1:06d}.jpg"
        save(root / name, picture(number))
        rows.append(
            {
                "relative_im_path": name,
                **_box(),
                "class": np.uint8(number // per_class + 1),
                "test": np.uint8(number % 2),
            }
        )
    mat(root / "cars_annos.mat", annotations=structs(rows), class_names=_names(CAR_NAMES))
    return root


def aircraft(root: Path, per_class: int = 4) -> Path:
    """FGVC-Aircraft: `per_class` images of every variant in each of train, val and test."""
    data, number = root / "data", 0
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for variant in VARIANTS:
        for part in lists:
            for _ in range(per_class):
                number += 1
                save(data / "images" / f"{number:07d}.jpg", picture(number, 60, 64))
                lists[part].append(f"{number:07d} {variant}")
    for part, lines in lists.items():
        text(data / f"images_variant_{part}.txt", lines)
    text(data / "images_variant_trainval.txt", lists["train"] + lists["val"])
    text(data / "variants.txt", VARIANTS)
    return root


def nabirds(root: Path, ids: Sequence[int] = (295, 1010, 313, 77), per_class: int = 6) -> Path:
    """NABirds: ids with gaps, folders of four digits, long identifiers."""
    images, labels, trained = [], [], []
    for id_ in ids:
        for number in range(per_class):
            image = f"{id_:08x}-21dc-4d0c-bfe1-{number:012x}"
            path = f"{id_:04d}/{image.replace('-', '')}.jpg"
            save(root / "images" / path, picture(1000 * id_ + number))
            images.append(f"{image} {path}")
            labels.append(f"{image} {id_}")
            trained.append(f"{image} {int(number % 2 == 0)}")
    text(root / "images.txt", images)
    text(root / "image_class_labels.txt", labels)
    text(root / "train_test_split.txt", trained)
    text(
        root / "classes.txt",
        ["0 Birds", *(f"{id_} Bird No. {id_} (Adult male)" for id_ in sorted(ids))],
    )
    text(root / "hierarchy.txt", [f"{id_} 0" for id_ in ids])
    return root


def cub(root: Path, classes: int = 4, per_class: int = 6) -> Path:
    """CUB-200-2011: ids from 1, the first image of every class is grey."""
    images, labels, trained, number = [], [], [], 0
    for class_ in range(1, classes + 1):
        for place in range(per_class):
            number += 1
            path = f"{class_:03d}.Some_Bird_{class_}/Some_Bird_{place:04d}.jpg"
            image = picture(number)
            save(root / "images" / path, image.convert("L") if place == 0 else image)
            images.append(f"{number} {path}")
            labels.append(f"{number} {class_}")
            trained.append(f"{number} {int(place % 2 == 0)}")
    text(root / "images.txt", images)
    text(root / "image_class_labels.txt", labels)
    text(root / "train_test_split.txt", trained)
    text(
        root / "classes.txt",
        [f"{class_} {class_:03d}.Some_Bird_{class_}" for class_ in range(1, classes + 1)],
    )
    return root


def butterflies(
    root: Path, numbers: Sequence[int] = (1, 2, 10, 139), per_class: int = 6, *, lists: bool = True
) -> Path:
    """Butterfly-200, its lists with five columns."""
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in numbers:
        for place in range(per_class):
            path = f"{number:03d}.Genus_species{number}/{place + 1:03d}.jpg"
            save(root / "images_small" / path, picture(1000 * number + place))
            lines[("train", "val", "test")[place % 3]].append(f"{path} {number} 7 3 1")
    if lists:
        for part, of_part in lines.items():
            text(root / f"Butterfly200_{part}_release.txt", of_part)
    return root


def webvision(
    root: Path, per_query: int = 6, *, lists: bool = True, synsets: Sequence[str] = SYNSETS
) -> Path:
    """WebVision: two queries per synset, the odd ones in both sources."""
    text(root / "info" / "synsets.txt", synsets)
    queries = [(query, (query - 1) // 2 + 1) for query in range(1, 2 * len(synsets) + 1)]
    text(
        root / "info" / "queries_synsets_map.txt",
        [f"{query} {synset}" for query, synset in queries],
    )
    for place, source in enumerate(("google", "flickr")):
        lines = []
        for query, synset in queries[:: place + 1]:
            for number in range(per_query):
                path = f"{source}/q{query:04d}/{number}abc.jpg"
                save(root / path, picture(10_000 * query + 10 * number + place + 7))
                lines.append(f"{path} {synset - 1}")
        if lists:
            text(root / "info" / f"train_filelist_{source}.txt", lines)
    return root


def class_folders(
    root: Path,
    classes: Sequence[str] = ("ant", "bee", "cat", "dog"),
    per_class: int = 6,
    *,
    seed: int = 0,
    suffix: str = ".jpg",
) -> Path:
    """class/img.jpg."""
    for number, name in enumerate(classes):
        for place in range(per_class):
            save(
                root / name / f"img {place}{suffix}",
                picture(10_000_000 * (seed + 1) + 1000 * number + place),
            )
    return root
