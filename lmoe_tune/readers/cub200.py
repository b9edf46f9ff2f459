"""CUB-200-2011 (Wah et al. 2011): 200 bird species, 11,788 images, some of them grey."""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.readers import nabirds, numbered_lists
from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.layout import Layout, Reader


def _matches(root: Path) -> bool:
    return numbered_lists.exist(root) and not nabirds.matches(root)


READER = Reader(
    title="CUB-200-2011",
    layouts=(
        Layout(
            "images/ and numbered lists (CUB)",
            numbered_lists.HOLDS,
            numbered_lists.read_numbered,
            _matches,
        ),
        *CLASS_FOLDERS,
    ),
    source="unpack CUB_200_2011.tgz",
    num_classes=200,
    parts=("train", "test"),
    resize=512,
    crop=448,
    shows=nabirds.BIRDS,
    class_folder=re.compile(r"\d{3}\.\D"),
)
