"""Generated photographs: JPEGs of the size, and of about the file size, that data sets of photographs have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZES = (
    (500, 375),
    (640, 480),
    (800, 600),
    (1000, 750),
)  # pixels; Stanford Cars' median is about 700 x 480
QUALITY = 90


def write_photographs(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Write so many JPEGs, sizes in turn, every third one upright; returns their paths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        if number % 3 == 2:
            width, height = height, width
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(photograph(rng, width, height)).save(path, quality=QUALITY)
        paths.append(path)
    return paths


def photograph(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): detail at all scales that falls off as in photographs, a few hard edges, some grain."""
    picture = np.zeros((height, width, 3))
    cells = 3
    while cells < min(width, height):
        noise = (rng.random((cells, cells + 1, 3)) * 255).astype(np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture += (np.asarray(layer, dtype=np.float64) - 127.5) / cells**0.75
        cells *= 2
    for _ in range(6):
        left, top = rng.integers(width), rng.integers(height)
        picture[top : top + height // 4, left : left + width // 4] += rng.normal(0, 12, 3)
    picture = (picture - picture.mean()) * (48 / picture.std()) + 120
    picture += rng.normal(0, 3.5, (height, width, 1))
    pixels: npt.NDArray[np.uint8] = picture.clip(0, 255).astype(np.uint8)
    return pixels
