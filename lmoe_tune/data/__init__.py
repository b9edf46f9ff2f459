"""Data sets, their honest splits, and the batches made from them.

A search gets its data only through `load_search_data`: training and validation images, and nothing
of the sealed test set. Importing this package imports neither torch nor Pillow.
"""

from lmoe_tune.data.search_data import SearchData, describe_splits, load_search_data
from lmoe_tune.data.splits import ClassSplit, ImageSplit, split_classes, split_images

__all__ = [
    "ClassSplit",
    "ImageSplit",
    "SearchData",
    "describe_splits",
    "load_search_data",
    "split_classes",
    "split_images",
]
