"""The data sets by name: what they are, what their folder must hold, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetInfo:
    """One data set.

    `num_classes` and `num_id_classes` are the published numbers (MixOE's splits); `num_val_novel` is given
    only where the default of a tenth of the in-distribution classes is not meant. `layouts` are the ways in
    which its folder is known to come, each the files and folders it must hold; one of them is enough.
    """

    title: str
    embedded: bool = False
    readable: bool = False
    num_classes: int | None = None
    num_id_classes: int | None = None
    num_val_novel: int | None = None
    layouts: tuple[tuple[str, ...], ...] = ()
    source: str = ""


CATALOGUE: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "scikit-learn's handwritten digits",
        embedded=True,
        readable=True,
        num_classes=10,
        num_id_classes=7,
        num_val_novel=2,
    ),
    "photo_china": DatasetInfo("patches of scikit-learn's photograph of China", embedded=True, readable=True),
    "photo_flower": DatasetInfo("patches of scikit-learn's photograph of a flower", embedded=True, readable=True),
    "stanford_cars": DatasetInfo(
        "Stanford Cars",
        num_classes=196,
        num_id_classes=150,
        layouts=(
            (
                "cars_train",
                "cars_test",
                "devkit/cars_meta.mat",
                "devkit/cars_train_annos.mat",
                "cars_test_annos_withlabels.mat",
            ),
            ("car_ims", "cars_annos.mat"),
        ),
        source="unpack cars_train.tgz, cars_test.tgz and car_devkit.tgz from a mirror, with "
        "cars_test_annos_withlabels.mat beside them (the original host is gone, torchvision cannot download it)",
    ),
    "fgvc_aircraft": DatasetInfo(
        "FGVC-Aircraft",
        num_classes=100,
        num_id_classes=90,
        layouts=(
            ("data/images", "data/variants.txt", "data/images_variant_trainval.txt", "data/images_variant_test.txt"),
        ),
        source="unpack fgvc-aircraft-2013b.tar.gz",
    ),
    "nabirds": DatasetInfo(
        "NABirds",
        num_classes=555,
        num_id_classes=None,
        layouts=(("images", "images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"),),
        source="unpack nabirds.tar.gz",
    ),
    "butterfly200": DatasetInfo(
        "Butterfly-200",
        num_classes=200,
        num_id_classes=150,
        layouts=(("images_small",),),
        source="unpack images_small.zip and the split files beside it",
    ),
    "cub200": DatasetInfo(
        "CUB-200-2011",
        num_classes=200,
        layouts=(("images", "images.txt", "image_class_labels.txt", "train_test_split.txt"),),
        source="unpack CUB_200_2011.tgz",
    ),
    "webvision": DatasetInfo(
        "WebVision 1.0",
        layouts=(
            ("google", "info/synsets.txt", "info/queries_synsets_map.txt"),
            ("flickr", "info/synsets.txt", "info/queries_synsets_map.txt"),
        ),
        source="unpack the resized images and info.tar; a part of the query folders is enough",
    ),
    "folder": DatasetInfo("a folder of class folders", source="one folder per class, images inside"),
}


READABLE = f"it reads {', '.join(name for name, info in CATALOGUE.items() if info.readable)}"


def missing(dataset: str, root: str | None) -> str | None:
    """What a data set lacks: None when all is there, else what was looked for, where, and how to provide it."""
    info = CATALOGUE[dataset]
    if info.embedded:
        return None
    assert root is not None, f"{dataset} needs a root"
    folder = Path(root)
    lacking = [[name for name in layout if not (folder / name).exists()] for layout in info.layouts]
    if folder.is_dir() and (not lacking or [] in lacking):
        return None if info.readable else f"{info.title} is there, but this version cannot read it; {READABLE}"
    if folder.is_dir():
        state = f"{folder} is there, but lacks {', or '.join(', '.join(names) for names in lacking)}"
    else:
        layouts = ", or ".join(", ".join(layout) for layout in info.layouts) or "folders named by class"
        state = f"there is no folder {folder}, where it should hold {layouts}"
    advice = f" To provide it: {info.source}." if info.source else ""
    return f"{info.title} not found: {state}.{advice} Put it there, or set this key to where it is"
