"""FGVC-Aircraft (Maji et al. 2013): 100 variants, 10,000 images in thirds for train, val and test.

Names of variants contain blanks ("Spitfire", "Falcon 2000", "F/A-18"), so a line is split once. The
bottom 20 pixels of every image name its photographer and must be cut off, as the set's own
documentation says.
"""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.files import UNPACK_AGAIN, present, read_list, read_pairs
from lmoe_tune.readers.layout import Entry, Kind, Layout, LayoutError, Reader, Reading
from lmoe_tune.readers.reading import make_reading

LISTS = "images_variant_{}.txt"
LISTED = ("train", "val", "trainval", "test")


def _data(root: Path) -> Path | None:
    """The folder with the lists: `data` in the archive, which people also take for the root."""
    for folder in (root / "data", root):
        there = {part for part in LISTED if (folder / LISTS.format(part)).exists()}
        whole = "trainval" in there or {"train", "val"} <= there
        if whole and "test" in there and (folder / "images").is_dir():
            return folder
    return None


def _read(root: Path) -> Reading:
    data = _data(root)
    assert data is not None, "not the layout that was recognised"
    prefix = (data / "images").relative_to(root).as_posix()
    lists = {part: data / LISTS.format(part) for part in LISTED}
    notes = []
    parts = {"train": "train", "val": "val", "test": "test"}
    if not (lists["train"].exists() and lists["val"].exists()):
        parts = {"trainval": "train", "test": "test"}
        notes.append(
            "the official validation images are not listed apart: some of the training images take "
            "their place"
        )

    listed = [
        Entry(f"{prefix}/{number}.jpg", variant, official)
        for part, official in parts.items()
        for number, variant in read_pairs(lists[part])
    ]
    variants = data / "variants.txt"
    classes = sorted({entry.label for entry in listed})
    if variants.exists():
        classes = read_list(variants)
    unknown = sorted({entry.label for entry in listed} - set(classes))
    if unknown:
        raise LayoutError(f"{variants} lacks the variant '{unknown[0]}'", UNPACK_AGAIN)

    found, absent = present(root, listed)
    return make_reading(found, classes=classes, absent=absent, notes=notes)


READER = Reader(
    title="FGVC-Aircraft",
    layouts=(
        Layout(
            "data/ with images/ and images_variant_*.txt",
            (
                "data/images",
                "data/variants.txt",
                "data/images_variant_trainval.txt",
                "data/images_variant_test.txt",
            ),
            _read,
            lambda root: _data(root) is not None,
        ),
        *CLASS_FOLDERS,
    ),
    source="unpack fgvc-aircraft-2013b.tar.gz",
    num_classes=100,
    num_id_classes=90,
    parts=("train", "val", "test"),
    resize=512,
    crop=448,
    crop_bottom=20,
    shows=Kind(
        "aircraft",
        (
            "aircraft", "airplane", "aeroplane", "airliner", "airship", "dirigible", "warplane",
            "military plane", "jet", "helicopter", "glider", "biplane", "seaplane", "fighter",
            "bomber", "wing", "flattop", "aircraft carrier", "space shuttle",
        )
    ),
)  # fmt: skip
