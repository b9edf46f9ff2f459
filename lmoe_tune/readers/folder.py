"""A user's own images: class folders, with or without split folders above them."""

from __future__ import annotations

from lmoe_tune.readers.class_folders import CLASS_FOLDERS, read_any_images
from lmoe_tune.readers.files import images_below
from lmoe_tune.readers.layout import Layout, Reader

READER = Reader(
    title="a folder of class folders",
    layouts=CLASS_FOLDERS,
    source="one folder per class, images inside",
    resize=512,
    crop=448,
)

ANY_IMAGES = Layout(
    "any images",
    ("images",),
    read_any_images,
    lambda root: next(images_below(root), None) is not None,
)
"""For outliers and coarse OOD only: the images need no classes."""
