from __future__ import annotations

import numpy as np
import pytest
import torch

from lmoe_tune.methods.mixing import cutmix, draw_boxes, mixup


class Fixed(np.random.Generator):
    """A generator whose box centres are given: rows, then columns."""

    def __init__(self, rows: list[int], columns: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self._centres = [rows, columns]

    def integers(self, high, size):  # type: ignore[no-untyped-def, override]
        centres = self._centres.pop(0)
        assert len(centres) == size
        assert max(centres) < high
        return np.array(centres)


def test_mixup_by_hand() -> None:
    images, outliers = (
        torch.tensor([[8.0, 0.0], [4.0, 4.0]]),
        torch.tensor([[0.0, 4.0], [8.0, 0.0]]),
    )
    mixed = mixup(images.view(2, 1, 1, 2), outliers.view(2, 1, 1, 2), torch.tensor([0.75, 0.5]))
    assert mixed.flatten(1).tolist() == [[6.0, 1.0], [6.0, 2.0]]


def test_a_box_by_hand() -> None:
    """lam .75 of 4 x 6 pixels: half of each side, 2 x 3, from row 2 - 1 and column 3 - 1."""
    (box,) = draw_boxes(Fixed([2], [3]), torch.tensor([0.75]), 4, 6, "batch")
    expected = torch.zeros(1, 4, 6, dtype=torch.bool)
    expected[0, 1:3, 2:5] = True
    assert torch.equal(box, expected)


def test_what_hangs_over_the_border_is_lost_and_lam_says_so() -> None:
    """The same box at the corner: of its 2 x 3 pixels 1 x 2 are inside."""
    boxes = draw_boxes(Fixed([0], [0]), torch.tensor([0.75]), 4, 6, "batch")
    mixed, lam = cutmix(torch.ones(1, 3, 4, 6), torch.zeros(1, 3, 4, 6), boxes)
    assert (mixed[0, :, :1, :2] == 0).all()
    assert mixed.sum() == 3 * (24 - 2)
    assert lam.tolist() == pytest.approx([22 / 24])


def test_the_outlier_is_pasted_into_the_image_and_not_the_other_way_round() -> None:
    boxes = draw_boxes(Fixed([2], [2]), torch.tensor([0.96]), 10, 10, "batch")
    mixed, lam = cutmix(torch.full((1, 1, 10, 10), 5.0), torch.full((1, 1, 10, 10), 7.0), boxes)
    assert lam.item() == pytest.approx(0.96)
    assert (mixed == 7).sum() == 4
    assert (mixed == 5).sum() == 96


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (1, 1)])
def test_lam_is_the_exact_share_of_the_image_that_is_left(
    per: str, height: int, width: int
) -> None:
    rng = np.random.default_rng(0)
    images, outliers = torch.ones(7, 2, height, width), torch.zeros(7, 2, height, width)
    for _ in range(50):
        asked = torch.from_numpy(rng.beta(1, 1, size=7 if per == "sample" else 1)).float().expand(7)
        mixed, lam = cutmix(images, outliers, draw_boxes(rng, asked, height, width, per))
        assert torch.allclose(lam, mixed.mean(dim=(1, 2, 3)))
        assert (lam >= asked - 1e-6).all(), "a box is never larger than asked for"


def test_one_box_for_a_batch_or_one_per_pair() -> None:
    lam = torch.full((30,), 0.5)
    per_batch = draw_boxes(np.random.default_rng(0), lam, 16, 16, "batch")
    per_sample = draw_boxes(np.random.default_rng(0), lam, 16, 16, "sample")
    assert per_batch.shape == per_sample.shape == (30, 1, 16, 16)
    assert len({tuple(box.flatten().tolist()) for box in per_batch}) == 1
    assert len({tuple(box.flatten().tolist()) for box in per_sample}) > 10


@pytest.mark.parametrize(("lam", "left"), [(1.0, 1.0), (0.0, None)])
def test_the_ends_of_lam(lam: float, left: float | None) -> None:
    """lam 1 pastes nothing; lam 0 a box as large as the image, which the border may still cut."""
    boxes = draw_boxes(np.random.default_rng(0), torch.tensor([lam]), 8, 8, "batch")
    _, found = cutmix(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), boxes)
    assert found.item() == left if left is not None else 0 <= found.item() < 0.8
