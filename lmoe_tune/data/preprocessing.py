"""From an image file to the pixels that a detector takes, by the rules that its training images were read with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.data.decode import CorruptImageError, UInt8Array, decode_resized, decode_rgb

PIXELS = (
    "(N, C, H, W), values in 0-255; C is RGB or grey, mean and std are taken off inside the model"
)


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes pixels: `detector.json` holds these fields."""

    channels: int
    """3: red, green, blue; 1: grey."""
    resize: int | None
    """Side of the square that an image is resized to (bilinear, antialiased); None: it is taken as it is."""
    crop: tuple[int, int]
    """Height and width of what is then cut out: the size of the model's input."""
    corner: tuple[int, int]
    """Top and left of that, in pixels."""
    mean: tuple[float, ...]
    """Per channel, in 0-255. For information: the model itself subtracts it, and divides by `std`."""
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, (C, H, W)."""
        return (self.channels, *self.crop)

    def read(self, path: Path | str) -> UInt8Array:
        """The pixels (C, H, W) of an image file.

        Raises:
            CorruptImageError: it cannot be read, or has another size and is not to be resized.
        """
        if self.resize is not None:
            pixels = decode_resized(path, 0, self.resize)
            (top, left), (height, width) = self.corner, self.crop
            pixels = pixels[top : top + height, left : left + width]
        else:
            pixels = decode_rgb(path)
            if pixels.shape[:2] != self.crop:
                height, width = pixels.shape[:2]
                raise CorruptImageError(
                    path,
                    f"is {width} x {height} pixels, but must be {self.crop[1]} x {self.crop[0]} for this detector",
                )
        if self.channels == 1:
            pixels = _grey(pixels)[:, :, None]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def document(self) -> dict[str, Any]:
        """As it is written into `detector.json`."""
        return asdict(self) | {"pixels": PIXELS}

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> Preprocessing:
        """The other way round. Raises KeyError, TypeError or ValueError where it is not one."""
        resize = document["resize"]
        made = cls(
            channels=int(document["channels"]),
            resize=None if resize is None else int(resize),
            crop=_pair(document["crop"]),
            corner=_pair(document["corner"]),
            mean=tuple(float(value) for value in document["mean"]),
            std=tuple(float(value) for value in document["std"]),
        )
        if made.channels not in (1, 3) or min(made.crop) < 1:
            raise ValueError("preprocessing: channels must be 1 or 3, crop positive")
        return made


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _grey(pixels: UInt8Array) -> UInt8Array:
    """Pillow's luminance (H, W); a grey image's own values come out unchanged."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))
