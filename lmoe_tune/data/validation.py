"""The in-distribution images that a detector's threshold is measured on: trained on by nobody, and none of a test.

N images, C channels, H W pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmoe_tune.data.decode import UInt8Array
from lmoe_tune.data.decoded_cache import ImageFile, files_of
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.search_data import (
    PlannedData,
    channels_first,
    class_split_of,
    embedded_images,
    load_search_data,
    numbered,
    of_classes,
)
from lmoe_tune.data.search_plan import renumbered
from lmoe_tune.data.splits import IntArray, split_images
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import class_split, select_id, split_id
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec


@dataclass(frozen=True, eq=False)
class ValidationImages:
    """Images with their labels (N,), which count from 0 over `classes`: embedded ones as `pixels`, else as `files`."""

    labels: IntArray
    classes: tuple[str, ...]
    pixels: UInt8Array | None = None
    files: tuple[ImageFile, ...] = ()

    def chunks(
        self, preprocessing: Preprocessing, spec: DataSpec, home: Path, size: int
    ) -> Iterator[UInt8Array]:
        """All of them as uint8 (n, C, H, W), n at most `size`: what an evaluation sees before it normalises.

        Args:
            preprocessing: what the model was trained with; files are read by it, whatever the spec says now.
            spec: how decoded images are kept.
        """
        if self.pixels is not None:
            assert self.pixels.shape[1:] == preprocessing.shape, "embedded images of another size"
            for start in range(0, len(self.pixels), size):
                yield self.pixels[start : start + size]
            return

        import torch

        from lmoe_tune.data.loaders import Crops, HostLoader
        from lmoe_tune.data.rows import open_rows

        assert preprocessing.resize is not None, "files are resized"
        files = [replace(file, crop_bottom=preprocessing.crop_bottom) for file in self.files]
        rows = open_rows(files, spec, home, side=preprocessing.resize)
        loader = HostLoader(rows, torch.device("cpu"), threads=1)
        starts = range(0, len(files), size)
        chosen = (np.arange(start, min(start + size, len(files))) for start in starts)
        crops = (Crops.at(preprocessing.corner, some) for some in chosen)
        for pixels in loader.read(crops, preprocessing.crop[0]):
            yield np.ascontiguousarray(pixels.numpy().transpose(0, 3, 1, 2))


def of_search(data: DataSpec, home: Path) -> ValidationImages:
    """Of the classes that a search trains on. Raises UsageError where the data cannot be read."""
    found = load_search_data(data, home)
    if isinstance(found, PlannedData):
        plan = found.plan
        return ValidationImages(plan.val_labels, plan.classes, files=tuple(files_of(plan.val)))
    return ValidationImages(found.val_labels, found.classes, pixels=found.val_images)


def of_all_classes(data: DataSpec, home: Path) -> ValidationImages:
    """Of all in-distribution classes, those that a search holds out included: what a confirmation validates with."""
    if READERS[data.id.dataset].is_embedded:
        images, labels = embedded_images(data)
        known = class_split_of(data).in_distribution
        val = of_classes(labels, split_images(labels, split=data.split).val, known)
        names = tuple(str(label) for label in known)
        return ValidationImages(
            numbered(labels[val], known), names, pixels=channels_first(images[val])
        )
    found = select_id(data, home)
    table = found.table
    known = class_split(data, len(table.classes)).in_distribution
    indices = split_id(data, found).val
    part = Part(table, indices[np.isin(table.labels[indices], known)])
    names = tuple(table.classes[label] for label in known)
    return ValidationImages(renumbered(part, known), names, files=tuple(files_of(part)))
