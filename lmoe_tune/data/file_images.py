"""The images of files in batches: crops of decoded images, augmented on the device.

N images, B in-distribution images and M outliers of a batch, R side that images are resized to, H = W of the crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from lmoe_tune.data.loaders import Crops, Loader, channel_statistics, open_loader
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.rows import open_rows
from lmoe_tune.data.search_data import PlannedData
from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.streams import (
    IMAGE_AUGMENTATION,
    OUTLIER_AUGMENTATION,
    generator_of,
    slot_numbers,
    uploaded,
)

NUM_FOR_STATISTICS = 1000  # images whose mean and deviation stand for those of all training images
EVALUATION_PIXELS = (
    1 << 24
)  # of a forward without gradients: 83 images of 448 x 448 fit beside other trials


class FileImages:
    """A split's images by row: train, outliers, val, val_fine, val_coarse, one after the other.

    An epoch's crops and jitters are all drawn before its first image is read, so reading ahead changes
    nothing. Those of an image follow from its place in the epoch, those of an outlier from its slot.
    """

    def __init__(self, data: PlannedData, device: torch.device, home: Path) -> None:
        plan, spec = data.plan, data.spec
        self.device = device
        self._side, self._crop, self._augmentation = (
            spec.image_side,
            spec.image_crop,
            spec.augmentation,
        )
        self.num_train = len(plan.train)
        self.num_outliers = len(plan.outliers) if plan.outliers is not None else 0
        self.num_val, self.num_val_fine = len(plan.val), len(plan.val_fine)
        self._first_val = self.num_train + self.num_outliers
        self._num_evaluated = self.num_val + self.num_val_fine + len(plan.val_coarse)
        rows = open_rows(data.files(), spec, home)
        self._loader: Loader = open_loader(rows, spec, device)
        mean, std = data.mean, data.std
        if spec.normalise == "train":
            count = min(self.num_train, NUM_FOR_STATISTICS)
            mean, std = channel_statistics(rows, np.arange(count) * self.num_train // count)
        self.preprocessing = Preprocessing.of_square(
            crop_bottom=plan.train.table.crop_bottom,
            resize=self._side,
            crop=self._crop,
            mean=mean,
            std=std,
        )
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._train_labels = torch.from_numpy(plan.train_labels).to(device)
        self.val_labels = torch.from_numpy(plan.val_labels).to(device)

    def batches(self, epoch: Epoch) -> Iterator[Batch]:
        """The batches of an epoch, read ahead of their use."""
        order = uploaded(torch.from_numpy(epoch.images), self.device)
        steps = [(epoch.images_of(step), step) for step in range(len(epoch))]
        augmentations = self._augmentations(epoch)
        crops = (
            _crops(
                np.concatenate([epoch.images[images], self.num_train + epoch.outliers[step]]),
                augmentations[step],
            )
            for images, step in steps
        )

        read = self._loader.read(crops, self._crop)
        for (places, step), pixels in zip(steps, read, strict=True):
            images = augment(pixels, augmentations[step], self._mean, self._std)
            num_images = places.stop - places.start
            yield Batch(
                images=images[:num_images],
                labels=self._train_labels[order[places]],
                outliers=images[num_images:],
                pairs=partners(epoch.outliers.shape[1], num_images, self.device),
            )

    def _augmentations(self, epoch: Epoch) -> list[Augmentation]:
        """What is done to the images and the outliers of each step."""
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
        return [
            augmentation_of(
                np.concatenate([of_images[epoch.images_of(step)], of_outliers[step]]),
                self._augmentation,
                side=self._side,
                crop=self._crop,
            )
            for step in range(len(epoch))
        ]

    def val_chunks(self, size: int) -> Iterable[Tensor]:
        """All validation images, cropped from the centre."""
        return self.centred(self._loader, self._first_val, self._num_evaluated, size)

    def centred(self, loader: Loader, first: int, count: int, size: int) -> Iterator[Tensor]:
        """The rows from `first` on of a loader, cropped from the centre and normalised as this split's images are."""
        size = max(1, min(size, EVALUATION_PIXELS // self._crop**2))
        chunks = [
            first + np.arange(start, min(start + size, count)) for start in range(0, count, size)
        ]
        crops = (Crops.at(self.preprocessing.corner, rows) for rows in chunks)
        for pixels in loader.read(crops, self._crop):
            yield normalise(pixels, self._mean, self._std)


def _crops(rows: IntArray, augmentation: Augmentation) -> Crops:
    return Crops(rows, augmentation.tops.numpy(), augmentation.lefts.numpy())
