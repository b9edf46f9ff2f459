"""How an image becomes a network's input: the only record of it, and the code that does it.

The same record is in every checkpoint and in every exported detector. Training, validation,
measuring a threshold, ONNX, the models in MLflow and `predict` all follow it.

N images, C channels, H W pixels of the network's input, R side of the square that an image is
resized to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmoe_tune.data.decode import (
    DECODER_VERSION,
    CorruptImageError,
    Picture,
    UInt8Array,
    decode_resized,
    decode_rgb,
    name_of,
)

PIXELS = (
    "(N, C, H, W), values in 0-255; C is RGB or grey, mean and std are taken off inside the model"
)
INTERPOLATION = "bilinear, antialiased"


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to a network's input, in the order of these fields."""

    decoder: int
    """The rules by which a file is decoded (`lmoe_tune.data.decode`): EXIF rotation, grey, alpha,
    palette, 16 bit.
    """
    crop_bottom: int
    """Height in pixels of a banner that is cut off the image as it is stored; FGVC-Aircraft has
    one.
    """
    resize: int | None
    """Side R of the square that the image is resized to, bilinear and antialiased; None: it is used
    as it is.
    """
    crop: tuple[int, int]
    """Height and width of what is then cut out: the size of the network's input."""
    corner: tuple[int, int]
    """Top and left of the crop, in pixels. In training the corner is drawn."""
    channels: int
    """3: red, green, blue; 1: grey."""
    mean: tuple[float, ...]
    """Per channel, in 0-255: subtracted from the pixels."""
    std: tuple[float, ...]
    """Per channel, in 0-255: the result is divided by it."""

    @classmethod
    def of_square(
        cls,
        *,
        crop_bottom: int,
        resize: int,
        crop: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> Preprocessing:
        """For colour files: resized to a square, then a smaller square is cut from the centre."""
        corner = centre(resize, crop)
        return cls(
            decoder=DECODER_VERSION,
            crop_bottom=crop_bottom,
            resize=resize,
            crop=(crop, crop),
            corner=(corner, corner),
            channels=3,
            mean=mean,
            std=std,
        )

    @classmethod
    def as_stored(
        cls, shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> Preprocessing:
        """For images that already have the size of the network's input (C, H, W)."""
        channels, height, width = shape
        return cls(
            decoder=DECODER_VERSION,
            crop_bottom=0,
            resize=None,
            crop=(height, width),
            corner=(0, 0),
            channels=channels,
            mean=mean,
            std=std,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as the network takes it, (C, H, W)."""
        return (self.channels, *self.crop)

    def read(self, picture: Picture) -> UInt8Array:
        """The pixels (C, H, W) of an image, as input for the network, which normalises them itself.

        Raises:
            CorruptImageError: it cannot be read, or has another size and is not to be resized.
        """
        if self.resize is not None:
            pixels = self.cut(decode_resized(picture, self.crop_bottom, self.resize))
        else:
            pixels = self._of_the_right_size(picture)

        if self.channels == 1:
            pixels = _grey(pixels)[:, :, None]

        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def cut(self, pixels: UInt8Array) -> UInt8Array:
        """The crop of a resized image: (R, R, 3) to (H, W, 3)."""
        (top, left), (height, width) = self.corner, self.crop
        return pixels[top : top + height, left : left + width]

    def _of_the_right_size(self, picture: Picture) -> UInt8Array:
        pixels = decode_rgb(picture, self.crop_bottom)
        height, width = pixels.shape[:2]
        if (height, width) != self.crop:
            wanted = f"{self.crop[1]} x {self.crop[0]}"
            why = f"is {width} x {height} pixels, but must be {wanted} for this detector"
            raise CorruptImageError(name_of(picture), why)
        return pixels

    def document(self) -> dict[str, Any]:
        """As it is written into checkpoints and `detector.json`: plain numbers, words and lists."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return plain | {"interpolation": INTERPOLATION, "pixels": PIXELS}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `document`. Raises KeyError, TypeError or ValueError if it is not one."""
        resize = document["resize"]
        made = cls(
            decoder=_whole(document["decoder"]),
            crop_bottom=_whole(document["crop_bottom"]),
            resize=None if resize is None else _whole(resize),
            crop=_pair(document["crop"]),
            corner=_pair(document["corner"]),
            channels=_whole(document["channels"]),
            mean=tuple(float(value) for value in document["mean"]),
            std=tuple(float(value) for value in document["std"]),
        )
        made._refuse_impossible()
        return made

    def _refuse_impossible(self) -> None:
        if self.channels not in (1, 3) or min(self.crop) < 1 or self.crop_bottom < 0:
            raise ValueError("preprocessing: channels must be 1 or 3, crop positive")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("preprocessing: mean and std must have a number per channel")
        if self.decoder != DECODER_VERSION:
            raise ValueError(
                f"its images were decoded by the rules of version {self.decoder}, but this lmoe-tune has "
                f"version {DECODER_VERSION}"
            )


def centre(side: int, crop: int) -> int:
    """Where torchvision's `CenterCrop` begins, in pixels."""
    return round((side - crop) / 2)


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return _whole(first), _whole(second)


def _whole(value: Any) -> int:
    try:
        return int(value)
    except OverflowError as error:  # of infinity, which JSON can hold
        raise ValueError(f"{value} is no whole number") from error


def _grey(pixels: UInt8Array) -> UInt8Array:
    """Pillow's luminance (H, W); a grey image's own values come out unchanged."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))
