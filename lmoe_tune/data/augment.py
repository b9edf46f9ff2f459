"""Augmentation on the device, a batch at a time, from parameters that an explicit generator has drawn.

The published protocol's `RandomCrop`, `RandomHorizontalFlip`, `ColorJitter(brightness, saturation)` and
`Normalize`, with the distributions that torchvision gives them. The crop is where the pixels are read, the rest
is here. Unlike a PIL pipeline, nothing is rounded to whole levels in between.

N images, H W pixels of the crop. Pixels are 0-255 throughout, also as floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmoe_tune.spec import AugmentSpec

GREY = (0.2989, 0.587, 0.114)  # of red, green, blue: as torchvision's rgb_to_grayscale


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image of a batch; all tensors (N,), on the CPU.

    `tops` and `lefts` are the corner of the crop in pixels, `flips` whether it is mirrored, `brightness` and
    `saturation` factors, and `brightness_first` in which order these two are applied.
    """

    tops: Tensor
    lefts: Tensor
    flips: Tensor
    brightness: Tensor
    saturation: Tensor
    brightness_first: Tensor

    def __len__(self) -> int:
        return len(self.tops)


def draw(generator: torch.Generator, count: int, spec: AugmentSpec, *, side: int, crop: int) -> Augmentation:
    """Parameters for so many images of `side` pixels, independent of one another."""

    def uniform(spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(count, generator=generator) - 1)

    if spec.random_crop:
        tops, lefts = torch.randint(0, side - crop + 1, (2, count), generator=generator)
    else:
        tops = lefts = torch.full((count,), centre(side, crop))
    return Augmentation(
        tops=tops,
        lefts=lefts,
        flips=torch.rand(count, generator=generator) < (0.5 if spec.flip else 0.0),
        brightness=uniform(spec.brightness),
        saturation=uniform(spec.saturation),
        brightness_first=torch.rand(count, generator=generator) < 0.5,
    )


def centre(side: int, crop: int) -> int:
    """Where torchvision's `CenterCrop` begins, in pixels."""
    return round((side - crop) / 2)


def augment(pixels: Tensor, augmentation: Augmentation, mean: Tensor, std: Tensor) -> Tensor:
    """Flip, jitter and normalise crops.

    Args:
        pixels: uint8 (N, H, W, 3), already cropped.
        mean, std: (3,), on the device of the pixels.

    Returns:
        Normalised float32 (N, 3, H, W), channels last in memory.
    """
    device = pixels.device
    if augmentation.flips.any():
        flips_N111 = _on(augmentation.flips, device)
        pixels = torch.where(flips_N111, pixels.flip(2), pixels)
    images = pixels.float()
    first = augmentation.brightness_first
    jitters = {
        True: bool((augmentation.brightness != 1).any()),
        False: bool((augmentation.saturation != 1).any()),
    }
    if jitters[True] and jitters[False]:
        for is_first in (True, False):
            is_brightness = first if is_first else ~first
            factor = torch.where(is_brightness, augmentation.brightness, augmentation.saturation)
            blend_with_grey(images, _on(factor, device), _on((1 - factor) * ~is_brightness, device))
    elif jitters[True]:
        images.mul_(_on(augmentation.brightness, device)).clamp_(0, 255)
    elif jitters[False]:
        blend_with_grey(images, _on(augmentation.saturation, device), _on(1 - augmentation.saturation, device))
    return _normalised(images, mean, std)


def normalise(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W), channels last in memory."""
    return _normalised(pixels.float(), mean, std)


def blend_with_grey(images: Tensor, factor: Tensor, grey_factor: Tensor) -> Tensor:
    """images * factor + grey * grey_factor, clamped to 0-255, in place; images (N, H, W, 3), factors (N, 1, 1, 1).

    A brightness of b is (b, 0), a saturation of s is (s, 1 - s): one formula for both, so that each image of a
    batch may have them in its own order.
    """
    weights = torch.tensor(GREY, device=images.device)
    grey = (images @ weights).unsqueeze(3).mul_(grey_factor)
    return images.mul_(factor).add_(grey).clamp_(0, 255)


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return images.sub_(mean).div_(std).permute(0, 3, 1, 2)


def _on(values: Tensor, device: torch.device) -> Tensor:
    return values.view(-1, 1, 1, 1).to(device, non_blocking=True)
