"""CUB-200-2011 (Wah et al. 2011): 200 bird species, 11,788 images, some of them grey."""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.data.readers import nabirds, numbered_lists
from lmoe_tune.data.readers.class_folders import class_folders
from lmoe_tune.data.readers.layout import Layout, Reading
from lmoe_tune.data.readers.numbered_lists import HOLDS

NAME = "images/ and numbered lists (CUB)"


def _read(root: Path) -> Reading:
    return numbered_lists.read_numbered("cub200", NAME, root)


def _matches(root: Path) -> bool:
    return numbered_lists.exist(root) and not nabirds.matches(root)


LAYOUTS = (Layout(NAME, HOLDS, _read, _matches), *class_folders("cub200"))
