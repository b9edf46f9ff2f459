"""The images of files in batches: crops of decoded images, augmented on the device.

N images, B in-distribution images and K outliers of a batch, R side that images are resized to, H = W of the crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.augment import Augmentation, augment, draw, normalise
from lmoe_tune.data.batches import Batch, Step, paired
from lmoe_tune.data.loaders import Crops, Loader, channel_statistics, open_loader
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.rows import open_rows
from lmoe_tune.data.search_data import PlannedData
from lmoe_tune.data.splits import IntArray

NUM_FOR_STATISTICS = 1000  # images whose mean and deviation stand for those of all training images
EVALUATION_PIXELS = (
    1 << 24
)  # of a forward without gradients: 83 images of 448 x 448 fit beside other trials


class FileImages:
    """A split's images by row: train, outliers, val, val_fine, val_coarse, one after the other.

    A batch is a pure function of its step and the generator: an epoch's crops and jitters are all drawn before
    its first image is read, so reading ahead changes nothing, and the generator's state is all that a checkpoint
    needs.
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
        self._train_labels = torch.from_numpy(plan.train_labels)
        self.val_labels = torch.from_numpy(plan.val_labels)

    def batches(self, steps: Iterator[Step], rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of an epoch, read ahead of their use."""
        planned = list(steps)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        augmentations = [
            draw(
                generator,
                len(step.images) + len(step.outliers),
                self._augmentation,
                side=self._side,
                crop=self._crop,
            )
            for step in planned
        ]
        crops = (
            _crops(np.concatenate([step.images, self.num_train + step.outliers]), augmentation)
            for step, augmentation in zip(planned, augmentations, strict=True)
        )
        read = self._loader.read(crops, self._crop)
        for step, augmentation, pixels in zip(planned, augmentations, read, strict=True):
            images = augment(pixels, augmentation, self._mean, self._std)
            yield Batch(
                images=images[: len(step.images)],
                labels=self._train_labels[torch.from_numpy(step.images)].to(
                    self.device, non_blocking=True
                ),
                outliers=images[len(step.images) :],
                pairs=paired(step, self.device),
            )

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
