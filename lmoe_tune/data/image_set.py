"""Some images, in an order: files, or pixels in memory.

N images, C channels, H W pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmoe_tune.data.decode import UInt8Array
from lmoe_tune.data.decoded_cache import ImageFile
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.table import Part
from lmoe_tune.spec import DataSpec


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N images: `pixels`, uint8 (N, C, H, W) as the network takes them, or `files`, which are still
    to be decoded.
    """

    pixels: UInt8Array | None = None
    files: tuple[ImageFile, ...] = ()

    @classmethod
    def grey(cls, images: UInt8Array) -> ImageSet:
        """Of grey pixels (N, H, W)."""
        return cls(pixels=np.ascontiguousarray(images[:, None]))

    @classmethod
    def of_part(cls, part: Part | None) -> ImageSet:
        """Of the files of a part of a data set, if there is one."""
        if part is None:
            return NO_IMAGES
        return cls(files=tuple(ImageFile(path, part.table.crop_bottom) for path in part.files()))

    @classmethod
    def joined(cls, sets: Sequence[ImageSet]) -> ImageSet:
        """Several sets, one after the other: all of pixels, or all of files."""
        if all(one.pixels is None for one in sets):
            return cls(files=tuple(file for one in sets for file in one.files))

        in_memory = [one.pixels for one in sets if one.pixels is not None]
        assert len(in_memory) == len(sets), "pixels go with pixels, files with files"
        return cls(pixels=np.concatenate(in_memory))

    def __len__(self) -> int:
        return len(self.files if self.pixels is None else self.pixels)

    def some(self, chosen: IntArray) -> ImageSet:
        """The images at some places (M,)."""
        if self.pixels is not None:
            return ImageSet(pixels=self.pixels[chosen])

        return ImageSet(files=tuple(self.files[place] for place in chosen.tolist()))

    def chunks(
        self, preprocessing: Preprocessing, spec: DataSpec, home: Path, size: int
    ) -> Iterator[UInt8Array]:
        """All images as uint8 (n, C, H, W), n at most `size`: as an evaluation sees them before it
        normalises.

        Args:
            preprocessing: what the model was trained with; files are read with it, whatever the
                spec says now.
            spec: says how decoded images are kept.
        """
        if self.pixels is not None:
            assert self.pixels.shape[1:] == preprocessing.shape, "pixels of another size"
            for start in range(0, len(self.pixels), size):
                yield self.pixels[start : start + size]
            return

        if not self.files:
            return

        import torch

        from lmoe_tune.data.loaders import Crops, HostLoader
        from lmoe_tune.data.rows import open_rows

        assert preprocessing.resize is not None, "files are resized"
        files = [replace(file, crop_bottom=preprocessing.crop_bottom) for file in self.files]
        rows = open_rows(files, spec, home, side=preprocessing.resize)
        loader = HostLoader(rows, torch.device("cpu"), threads=1)

        crops = Crops.chunks(preprocessing.corner, np.arange(len(files)), size)
        for pixels in loader.read(crops, preprocessing.crop[0]):
            yield np.ascontiguousarray(pixels.numpy().transpose(0, 3, 1, 2))


NO_IMAGES = ImageSet()
