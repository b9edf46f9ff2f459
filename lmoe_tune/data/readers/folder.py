"""A user's own images: class folders, with or without split folders above them."""

from __future__ import annotations

from lmoe_tune.data.readers.class_folders import class_folders, read_any_images
from lmoe_tune.data.readers.files import images_below
from lmoe_tune.data.readers.layout import Layout

LAYOUTS = class_folders("folder")

ANY_IMAGES = Layout(
    "any images",
    ("images",),
    read_any_images,
    lambda root: next(images_below(root), None) is not None,
)
"""What serves as outliers or as coarse_ood only: the images need no classes."""
