from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from lmoe_tune.data.augment import (
    NUM_DRAWN,
    Augmentation,
    augment,
    augmentation_of,
    centre,
    normalise,
)
from lmoe_tune.spec import AugmentSpec

MEAN, STD = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([60.0, 55.0, 50.0])
PUBLISHED = AugmentSpec()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_for(
    count: int, spec: AugmentSpec, *, side: int, crop: int, seed: int = 0
) -> Augmentation:
    numbers = np.random.default_rng(seed).random((count, NUM_DRAWN))
    return augmentation_of(numbers, spec, side=side, crop=crop)


def some_pixels(count: int = 6, side: int = 9) -> Tensor:
    """uint8 (N, H, W, 3) with black, white and every colour between."""
    pixels = torch.randint(
        0, 256, (count, side, side, 3), generator=generator(1), dtype=torch.uint8
    )
    pixels[0], pixels[1] = 0, 255
    return pixels


def unchanged(count: int) -> Augmentation:
    zeros, ones = torch.zeros(count, dtype=torch.int64), torch.ones(count)
    no = torch.zeros(count, dtype=torch.bool)
    return Augmentation(zeros, zeros, no, ones, ones, no)


def as_colours(images: Tensor) -> Tensor:
    """Undoes the normalisation: (N, 3, H, W) in 0-1."""
    return (images * STD.view(1, 3, 1, 1) + MEAN.view(1, 3, 1, 1)) / 255


def planar(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def test_without_changes_it_is_the_normalisation_alone() -> None:
    pixels = some_pixels()
    found = augment(pixels, unchanged(6), MEAN, STD)
    assert torch.equal(found, normalise(pixels, MEAN, STD))
    expected = (pixels.permute(0, 3, 1, 2).double() - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1)
    torch.testing.assert_close(found, expected.float())
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_pixels_given_stay_as_they_are() -> None:
    pixels = some_pixels()
    before = pixels.clone()
    augment(pixels, drawn_for(6, PUBLISHED, side=9, crop=9), MEAN, STD)
    assert torch.equal(pixels, before)


@pytest.mark.slow  # torchvision's import takes two seconds
class TestEachOperationEqualsTorchvisions:
    def test_flip(self) -> None:
        from torchvision.transforms import functional

        pixels, flips = some_pixels(), torch.tensor([True, False, True, True, False, True])
        found = augment(pixels, dataclasses.replace(unchanged(6), flips=flips), MEAN, STD)
        for image, plain, is_flipped in zip(as_colours(found), planar(pixels), flips, strict=True):
            torch.testing.assert_close(image, functional.hflip(plain) if is_flipped else plain)

    @pytest.mark.parametrize("name", ["brightness", "saturation"])
    def test_one_factor(self, name: str) -> None:
        from torchvision.transforms import functional

        pixels, factors = some_pixels(), torch.tensor([0.5, 0.875, 1.0, 1.125, 1.5, 2.0])
        found = augment(pixels, dataclasses.replace(unchanged(6), **{name: factors}), MEAN, STD)
        operation = getattr(functional, f"adjust_{name}")
        for image, plain, factor in zip(
            as_colours(found), planar(pixels), factors.tolist(), strict=True
        ):
            torch.testing.assert_close(image, operation(plain, factor), atol=2e-6, rtol=0)

    def test_both_factors_in_either_order(self) -> None:
        from torchvision.transforms import functional

        pixels = some_pixels(200)
        drawn = drawn_for(200, AugmentSpec(brightness=1, saturation=1), side=9, crop=9)
        drawn = dataclasses.replace(drawn, flips=torch.zeros(200, dtype=torch.bool))
        orders = Counter()
        for image, plain, brightness, saturation, first in zip(
            as_colours(augment(pixels, drawn, MEAN, STD)),
            planar(pixels),
            drawn.brightness.tolist(),
            drawn.saturation.tolist(),
            drawn.brightness_first.tolist(),
            strict=True,
        ):
            brighter = functional.adjust_brightness(plain, brightness)
            expected = functional.adjust_saturation(brighter, saturation)
            if not first:
                expected = functional.adjust_brightness(
                    functional.adjust_saturation(plain, saturation), brightness
                )
            torch.testing.assert_close(image, expected, atol=3e-6, rtol=0)
            orders[first] += 1
        assert min(orders.values()) > 60

    def test_the_parameters_have_the_same_distributions(self) -> None:
        """Moments and ends of 20,000 draws of each side."""
        from torchvision.transforms import ColorJitter, RandomCrop

        torch.manual_seed(0)
        count, jitter = 20_000, ColorJitter(brightness=32 / 255, saturation=0.5)
        ours = drawn_for(count, PUBLISHED, side=40, crop=32)
        drawn = [
            ColorJitter.get_params(jitter.brightness, None, jitter.saturation, None)
            for _ in range(count)
        ]
        brightness, saturation = (
            torch.tensor([d[1] for d in drawn]),
            torch.tensor([d[3] for d in drawn]),
        )
        first = torch.tensor([d[0].tolist().index(0) < d[0].tolist().index(2) for d in drawn])
        image = torch.zeros(3, 40, 40)
        crops = torch.tensor([RandomCrop.get_params(image, (32, 32))[:2] for _ in range(count)])
        pairs = (
            (ours.brightness, brightness),
            (ours.saturation, saturation),
            (ours.brightness_first, first),
            (ours.tops, crops[:, 0]),
            (ours.lefts, crops[:, 1]),
        )
        for mine, theirs in pairs:
            mine, theirs = mine.double(), theirs.double()
            tolerance = 5 * float(theirs.std()) / count**0.5
            assert abs(float(mine.mean() - theirs.mean())) < tolerance * 2**0.5
            assert float(mine.std()) == pytest.approx(float(theirs.std()), rel=0.03)
            reach = float(theirs.max() - theirs.min())
            assert float(mine.min()) == pytest.approx(float(theirs.min()), abs=0.01 * reach)
            assert float(mine.max()) == pytest.approx(float(theirs.max()), abs=0.01 * reach)

    @pytest.mark.parametrize(
        ("side", "crop"), [(512, 448), (9, 9), (10, 7), (11, 8), (40, 32), (33, 32)]
    )
    def test_the_centre(self, side: int, crop: int) -> None:
        from torchvision.transforms.functional import center_crop

        columns = torch.arange(side).expand(1, side, side)
        assert int(center_crop(columns, [crop, crop])[0, 0, 0]) == centre(side, crop)


def test_the_numbers_decide_the_parameters() -> None:
    """The least and the greatest number that there are, and one between."""
    numbers = np.array([[0.0] * NUM_DRAWN, [1 - 2.0**-53] * NUM_DRAWN, [0.5] * NUM_DRAWN])
    made = augmentation_of(numbers, AugmentSpec(brightness=0.2, saturation=0.5), side=12, crop=9)
    assert made.tops.tolist() == made.lefts.tolist() == [0, 3, 2]
    assert made.flips.tolist() == made.brightness_first.tolist() == [True, False, False]
    assert made.brightness.tolist() == pytest.approx([0.8, 1.2, 1.0])
    assert made.saturation.tolist() == pytest.approx([0.5, 1.5, 1.0])


def test_images_of_a_batch_are_varied_independently() -> None:
    drawn = drawn_for(4000, PUBLISHED, side=40, crop=32)
    values = torch.stack([value.double() for value in vars(drawn).values()])
    correlations = torch.corrcoef(values).fill_diagonal_(0)
    assert correlations.abs().max() < 0.08
    assert values.shape == (6, 4000)


def test_every_corner_comes_up() -> None:
    drawn = drawn_for(2000, PUBLISHED, side=10, crop=8)
    assert set(zip(drawn.tops.tolist(), drawn.lefts.tolist(), strict=True)) == {
        (y, x) for y in range(3) for x in range(3)
    }


def test_what_is_switched_off_does_not_happen() -> None:
    none = AugmentSpec(random_crop=False, flip=False, brightness=0, saturation=0)
    drawn = drawn_for(100, none, side=20, crop=12)
    assert set(drawn.tops.tolist()) == set(drawn.lefts.tolist()) == {4}
    assert not drawn.flips.any()
    pixels = some_pixels(100)
    assert torch.equal(augment(pixels, drawn, MEAN, STD), normalise(pixels, MEAN, STD))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same() -> None:
    pixels, drawn = some_pixels(50, 16), drawn_for(50, PUBLISHED, side=16, crop=16)
    there = augment(pixels.cuda(), drawn, MEAN.cuda(), STD.cuda())
    torch.testing.assert_close(there.cpu(), augment(pixels, drawn, MEAN, STD), atol=1e-4, rtol=0)
