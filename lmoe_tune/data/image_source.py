"""The images of a split on a device: batches to train on, chunks to evaluate.

N images, B in-distribution images and M outliers of a batch, C channels, R side that images are
kept at, H = W of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.augment import (
    NUM_DRAWN,
    Augmentation,
    augment,
    augmentation_of,
    normalise,
)
from lmoe_tune.data.batches import Batch, Epoch, partners
from lmoe_tune.data.image_set import ImageSet
from lmoe_tune.data.loaders import Crops, DeviceLoader, Loader, channel_statistics, open_loader
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.rows import InMemory, Rows, open_rows
from lmoe_tune.data.search_data import SearchData
from lmoe_tune.data.streams import (
    IMAGE_AUGMENTATION,
    OUTLIER_AUGMENTATION,
    generator_of,
    slot_numbers,
    uploaded,
)

NUM_FOR_STATISTICS = (
    1000  # images whose mean and deviation are taken for those of all training images
)
EVALUATION_PIXELS = (
    1 << 24
)  # of a forward without gradients: 83 images of 448 x 448 fit beside other trials


class ImageSource:
    """A split's images by row: train, outliers, val, val_fine, val_coarse, one after the other.

    An epoch's crops and jitters are all drawn before its first image is read, so reading ahead
    changes nothing. An image's depend on its place in the epoch, an outlier's on its slot.

    Attributes:
        preprocessing: how an image becomes the network's input, apart from the augmentation.
        val_labels: (N,) of the first `num_val` validation images, on the device.
    """

    def __init__(
        self, data: SearchData, device: torch.device, home: Path | None = None, *, threads: int = 1
    ) -> None:
        """Open the images; files not decoded yet are decoded first if `data.cache` says so.

        Args:
            home: where decoded images are kept; needed if there are files.
            threads: how many may decode and copy.
        """
        self.device = device
        self.num_train, self.num_outliers = len(data.train), len(data.outliers)
        self.num_val, self.num_val_fine = len(data.val), len(data.val_fine)
        self._data, self._home, self._threads = data, home, threads
        self._num_evaluated = self.num_val + self.num_val_fine + len(data.val_coarse)

        rows = self._rows(ImageSet.joined(list(data.parts().values())))
        self.preprocessing = _preprocessing(data, rows)
        self._loader = self._open(rows)
        self._crop = self.preprocessing.crop[0]
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        self._train_labels = torch.from_numpy(data.train_labels).to(device)
        self.val_labels = torch.from_numpy(data.val_labels).to(device)

    def batches(self, epoch: Epoch) -> Iterator[Batch]:
        """The batches of an epoch, read ahead of their use."""
        order = uploaded(torch.from_numpy(epoch.images), self.device)
        steps = [(epoch.images_of(step), step) for step in range(len(epoch))]
        drawn = self._augmentations(epoch)
        rows = (
            np.concatenate([epoch.images[images], self.num_train + epoch.outliers[step]])
            for images, step in steps
        )
        crops = (
            Crops.at(self.preprocessing.corner, some)
            if how is None
            else Crops(some, how.tops.numpy(), how.lefts.numpy())
            for some, how in zip(rows, drawn, strict=True)
        )

        read = self._loader.read(crops, self._crop)
        for (places, _), how, pixels in zip(steps, drawn, read, strict=True):
            if how is None:
                images = normalise(pixels, self._mean, self._std)
            else:
                images = augment(pixels, how, self._mean, self._std)

            num_images = places.stop - places.start
            yield Batch(
                images=images[:num_images],
                labels=self._train_labels[order[places]],
                outliers=images[num_images:],
                pairs=partners(epoch.outliers.shape[1], num_images, self.device),
            )

    def val_chunks(self, size: int) -> Iterator[Tensor]:
        """val, val_fine and val_coarse one after the other, normalised, at most `size` images at a
        time.
        """
        first = self.num_train + self.num_outliers
        return self._centred(self._loader, first, self._num_evaluated, size)

    def chunks_of(self, images: ImageSet, size: int) -> Iterator[Tensor]:
        """Other images on the device, read and normalised like this split's, at most `size` at a
        time.
        """
        loader = self._open(self._rows(images), to_keep=False)
        return self._centred(loader, 0, len(images), size)

    def _rows(self, images: ImageSet) -> Rows:
        if images.pixels is not None:
            return InMemory(images.pixels)

        assert self._home is not None, "files are kept in a home"
        return open_rows(images.files, self._data.spec, self._home, processes=self._threads)

    def _open(self, rows: Rows, *, to_keep: bool = True) -> Loader:
        if isinstance(rows, InMemory):
            return DeviceLoader(rows, self.device)

        cache = self._data.spec.cache
        if not to_keep and cache == "device":
            cache = "disk"  # read once at the end: no reason to fill the device's memory with them
        return open_loader(rows, cache, self.device, threads=self._threads)

    def _centred(self, loader: Loader, first: int, count: int, size: int) -> Iterator[Tensor]:
        rows = first + np.arange(count)
        size = rows_evaluated(size, self._crop)
        crops = Crops.chunks(self.preprocessing.corner, rows, size)
        for pixels in loader.read(crops, self._crop):
            yield normalise(pixels, self._mean, self._std)

    def _augmentations(self, epoch: Epoch) -> list[Augmentation | None]:
        """The augmentation of the images and the outliers of each step; None for embedded ones."""
        if self._data.is_embedded:
            return [None] * len(epoch)

        rng = generator_of(epoch.seed, IMAGE_AUGMENTATION, epoch.number)
        of_images = rng.random((len(epoch.images), NUM_DRAWN))
        of_outliers = slot_numbers(
            epoch.seed,
            OUTLIER_AUGMENTATION,
            epoch.number,
            num_steps=len(epoch),
            num_slots=epoch.outliers.shape[1],
            width=NUM_DRAWN,
        )
        spec = self._data.spec
        return [
            augmentation_of(
                np.concatenate([of_images[epoch.images_of(step)], of_outliers[step]]),
                spec.augmentation,
                side=spec.image_side,
                crop=self._crop,
            )
            for step in range(len(epoch))
        ]


def rows_evaluated(size: int, crop: int) -> int:
    """How many images of `crop` x `crop` pixels are evaluated at a time, if at most `size` are
    asked for.
    """
    return max(1, min(size, EVALUATION_PIXELS // crop**2))


def _preprocessing(data: SearchData, rows: Rows) -> Preprocessing:
    if data.is_embedded:
        return Preprocessing.as_stored(data.image_shape, data.mean, data.std)

    mean, std = data.mean, data.std
    if data.spec.normalise == "train":
        num_train = len(data.train)
        count = min(num_train, NUM_FOR_STATISTICS)
        mean, std = channel_statistics(rows, np.arange(count) * num_train // count)

    return Preprocessing.of_square(
        crop_bottom=data.crop_bottom,
        resize=data.spec.image_side,
        crop=data.spec.image_crop,
        mean=mean,
        std=std,
    )
