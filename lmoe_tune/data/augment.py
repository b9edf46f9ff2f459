"""Augmentation on the device, a batch at a time, from given uniform numbers.

The published protocol's `RandomCrop`, `RandomHorizontalFlip`, `ColorJitter(brightness, saturation)`
and `Normalize`, with the distributions that torchvision gives them. The crop is made where the
pixels are read, the rest here. Unlike with PIL, nothing is rounded to whole levels in between.

N images, H W pixels of the crop. Pixels are 0-255 throughout, also as floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune.data.preprocessing import centre
from lmoe_tune.data.streams import uploaded
from lmoe_tune.spec import AugmentSpec

GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision's rgb_to_grayscale


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image of a batch; all tensors (N,), on the CPU.

    `tops` and `lefts` are the corner of the crop in pixels, `flips` says whether it is mirrored,
    `brightness` and `saturation` are factors, and `brightness_first` says which of the two comes
    first.
    """

    tops: Tensor
    lefts: Tensor
    flips: Tensor
    brightness: Tensor
    saturation: Tensor
    brightness_first: Tensor


NUM_DRAWN = 6  # uniform numbers that an image's augmentation takes


def augmentation_of(
    numbers: npt.NDArray[np.float64], spec: AugmentSpec, *, side: int, crop: int
) -> Augmentation:
    """The augmentation of images of `side` pixels from uniform numbers (N, NUM_DRAWN) in [0, 1)."""
    top, left, flip, brightness, saturation, first = torch.from_numpy(numbers).unbind(1)
    tops = lefts = torch.full((len(numbers),), centre(side, crop))
    if spec.random_crop:
        tops, lefts = _corner(top, side - crop), _corner(left, side - crop)

    flip_frac = 0.0
    if spec.flip:
        flip_frac = 0.5
    return Augmentation(
        tops=tops,
        lefts=lefts,
        flips=flip < flip_frac,
        brightness=(1 + spec.brightness * (2 * brightness - 1)).float(),
        saturation=(1 + spec.saturation * (2 * saturation - 1)).float(),
        brightness_first=first < 0.5,
    )


def _corner(numbers: Tensor, last: int) -> Tensor:
    """Whole numbers 0 to `last`, each as likely as the others."""
    return (numbers * (last + 1)).long().clamp(max=last)


def augment(pixels: Tensor, augmentation: Augmentation, mean: Tensor, std: Tensor) -> Tensor:
    """Flip, jitter and normalise crops.

    Args:
        pixels: uint8 (N, H, W, 3), already cropped.
        mean, std: (3,), on the device of the pixels.

    Returns:
        Normalised float32 (N, 3, H, W), channels last in memory.
    """
    count, height, width, _ = pixels.shape
    images = torch.empty(
        (count, 3, height, width), device=pixels.device, memory_format=torch.channels_last
    )
    # One image at a time on a CPU: it stays in the cache, which is twice as fast; all on a GPU.
    at_once = 1 if pixels.device.type == "cpu" else max(1, count)
    for start in range(0, count, at_once):
        some = slice(start, start + at_once)
        # Planes, as the grey of an image is a sum over them.
        planes = (
            pixels[some]
            .permute(0, 3, 1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format)
        )
        flips = augmentation.flips[some]
        if flips.any():
            planes = torch.where(_on(flips, planes), planes.flip(3), planes)
        for factor, grey_factor in _blends(augmentation, some):
            blend_with_grey(planes, factor, grey_factor)
        planes.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
        images[some] = planes
    return images


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W), channels last in memory."""
    return pixels.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def blend_with_grey(planes: Tensor, factor: Tensor, grey_factor: Tensor) -> None:
    """planes * factor + grey * grey_factor, clamped to 0-255, in place.

    A brightness of b is (b, 0), a saturation of s is (s, 1 - s): one formula for both, so that each
    image of a batch may have them in its own order.

    Args:
        planes: (N, 3, H, W).
        factor, grey_factor: (N,), on the CPU, so that factors that change nothing are skipped
            without a GPU sync.
    """
    if (grey_factor != 0).any():
        red, green, blue = planes.unbind(1)
        grey = (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).unsqueeze(1)
        planes.mul_(_on(factor, planes)).add_(grey.mul_(_on(grey_factor, planes))).clamp_(0, 255)
    elif (factor != 1).any():
        planes.mul_(_on(factor, planes)).clamp_(0, 255)


def _blends(augmentation: Augmentation, some: slice) -> Iterator[tuple[Tensor, Tensor]]:
    """`factor` and `grey_factor` of the first operation on some images, then of the second one."""
    brightness, saturation = augmentation.brightness[some], augmentation.saturation[some]
    first = augmentation.brightness_first[some]
    for is_brightness in (first, ~first):
        factor = torch.where(is_brightness, brightness, saturation)
        yield factor, (1 - factor) * ~is_brightness


def _on(values: Tensor, planes: Tensor) -> Tensor:
    return uploaded(values.view(-1, 1, 1, 1), planes.device)
