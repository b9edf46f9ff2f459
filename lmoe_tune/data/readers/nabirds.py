"""NABirds (Van Horn et al. 2015): 555 species and plumages, 48,562 images; class ids have gaps."""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.data.readers import numbered_lists
from lmoe_tune.data.readers.class_folders import class_folders
from lmoe_tune.data.readers.layout import Layout, Reading
from lmoe_tune.data.readers.numbered_lists import HOLDS

NAME = "images/ and numbered lists (NABirds)"


def _read(root: Path) -> Reading:
    return numbered_lists.read_numbered("nabirds", NAME, root)


def matches(root: Path) -> bool:
    """CUB-200-2011 has the same lists, but numbers its images, where NABirds has long identifiers."""
    id_ = numbered_lists.first_line(root / "images.txt").split(" ")[0]
    return numbered_lists.exist(root) and ((root / "hierarchy.txt").exists() or not id_.isdigit())


LAYOUTS = (Layout(NAME, (*HOLDS, "classes.txt"), _read, matches), *class_folders("nabirds"))
