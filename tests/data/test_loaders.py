"""Reading the crops of batches: right ones, in memory that is used again and never while somebody has it."""

from __future__ import annotations

import numpy as np
import torch

from lmoe_tune.data.loaders import AHEAD, Crops, DeviceLoader, HostLoader

SIDE, CROP = 12, 8
CPU = torch.device("cpu")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def crops_of(batches: int, sizes: tuple[int, ...] = (5,)) -> list[Crops]:
    rng, corner = np.random.default_rng(1), SIDE - CROP + 1
    made = []
    for number in range(batches):
        size = sizes[number % len(sizes)]
        made.append(
            Crops(
                rng.integers(0, 40, size),
                rng.integers(0, corner, size),
                rng.integers(0, corner, size),
            )
        )
    return made


def expected(rows: np.ndarray, crops: Crops) -> torch.Tensor:
    cut = [
        rows[row, top : top + CROP, left : left + CROP]
        for row, top, left in zip(crops.rows, crops.tops, crops.lefts, strict=True)
    ]
    return torch.from_numpy(np.stack(cut))


def test_both_loaders_give_the_crops_that_were_asked_for() -> None:
    rows, wanted = images(40), crops_of(9, (5, 3, 7))
    for loader in (
        HostLoader(rows, CPU, threads=1),
        HostLoader(rows, CPU, threads=3),
        DeviceLoader(rows, CPU),
    ):
        for _ in range(3):  # the later epochs in memory of the earlier ones
            given = 0
            for pixels, crops in zip(loader.read(wanted, CROP), wanted, strict=True):
                assert torch.equal(pixels, expected(rows, crops))
                given += 1
            assert given == len(wanted)


def test_what_is_kept_is_not_written_over() -> None:
    rows, wanted = images(40), crops_of(20)
    loader = HostLoader(rows, CPU, threads=1)
    kept = list(loader.read(wanted, CROP))
    views = [
        pixels[1:].permute(0, 3, 1, 2) for pixels in loader.read(wanted, CROP)
    ]  # their tensors are gone
    arrays = [pixels.numpy()[2] for pixels in loader.read(wanted, CROP)]
    for _ in loader.read(crops_of(30), CROP):
        pass
    for number, crops in enumerate(wanted):
        right = expected(rows, crops)
        assert torch.equal(kept[number], right)
        assert torch.equal(views[number], right[1:].permute(0, 3, 1, 2))
        assert np.array_equal(arrays[number], right[2].numpy())


def test_memory_is_used_again() -> None:
    loader = HostLoader(images(40), CPU, threads=1)
    addresses = set()
    for _ in range(5):
        for pixels in loader.read(crops_of(20), CROP):
            addresses.add(pixels.data_ptr())
            del pixels
    assert len(addresses) <= AHEAD + 2
