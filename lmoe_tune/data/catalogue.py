"""The data sets by name: what they are, their published numbers, and whether their folder is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmoe_tune.data.readers import READERS, TITLES, LayoutError, find_layout


@dataclass(frozen=True)
class DatasetInfo:
    """One data set.

    `num_classes` and `num_id_classes` are the published numbers (MixOE's splits); `num_val_novel` is given
    only where the default of a tenth of the in-distribution classes is not meant. `source` says how to provide it.
    """

    title: str
    embedded: bool = False
    num_classes: int | None = None
    num_id_classes: int | None = None
    num_val_novel: int | None = None
    source: str = ""


CATALOGUE: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "scikit-learn's handwritten digits",
        embedded=True,
        num_classes=10,
        num_id_classes=7,
        num_val_novel=2,
    ),
    "photo_china": DatasetInfo("patches of scikit-learn's photograph of China", embedded=True),
    "photo_flower": DatasetInfo("patches of scikit-learn's photograph of a flower", embedded=True),
    "stanford_cars": DatasetInfo(
        TITLES["stanford_cars"],
        num_classes=196,
        num_id_classes=150,
        source="unpack cars_train.tgz, cars_test.tgz and car_devkit.tgz from a mirror, with "
        "cars_test_annos_withlabels.mat beside them (the original host is gone, torchvision cannot download it)",
    ),
    "fgvc_aircraft": DatasetInfo(
        TITLES["fgvc_aircraft"],
        num_classes=100,
        num_id_classes=90,
        source="unpack fgvc-aircraft-2013b.tar.gz",
    ),
    "nabirds": DatasetInfo(
        TITLES["nabirds"],
        num_classes=555,
        num_id_classes=None,
        source="unpack nabirds.tar.gz",
    ),
    "butterfly200": DatasetInfo(
        TITLES["butterfly200"],
        num_classes=200,
        num_id_classes=150,
        source="unpack images_small.zip and the split files beside it",
    ),
    "cub200": DatasetInfo(
        TITLES["cub200"],
        num_classes=200,
        source="unpack CUB_200_2011.tgz",
    ),
    "webvision": DatasetInfo(
        TITLES["webvision"],
        source="unpack the resized images and info.tar; a part of the query folders is enough",
    ),
    "folder": DatasetInfo(TITLES["folder"], source="one folder per class, images inside"),
}


def missing(dataset: str, root: str | None, *, labelled: bool = True) -> str | None:
    """What a data set lacks: None when all is there, else what was looked for, where, and how to provide it.

    Args:
        labelled: whether its classes are needed.
    """
    info = CATALOGUE[dataset]
    if info.embedded:
        return None
    assert root is not None, f"{dataset} needs a root"
    folder = Path(root)
    if folder.is_dir():
        try:
            find_layout(dataset, folder, labelled=labelled)
        except LayoutError as error:
            return f"{info.title} not found: {error.what}. To fix it: {error.fix}"
        return None
    layouts = ", or ".join(", ".join(layout.holds) for layout in READERS[dataset] if not layout.fix)
    advice = f" To provide it: {info.source}." if info.source else ""
    return (
        f"{info.title} not found: there is no folder {folder}, where it should hold {layouts}.{advice} "
        "Put it there, or set this key to where it is"
    )
