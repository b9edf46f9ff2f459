from __future__ import annotations

import pytest
import torch

from lmoe_tune.methods.mixing import Boxes, boxes_of, cutmix, mixup


def at(*centre: float) -> torch.Tensor:
    return torch.tensor([centre])


def test_mixup_by_hand() -> None:
    images, outliers = (
        torch.tensor([[8.0, 0.0], [4.0, 4.0]]),
        torch.tensor([[0.0, 4.0], [8.0, 0.0]]),
    )
    mixed = mixup(images.view(2, 1, 1, 2), outliers.view(2, 1, 1, 2), torch.tensor([0.75, 0.5]))
    assert mixed.flatten(1).tolist() == [[6.0, 1.0], [6.0, 2.0]]


def test_a_box_by_hand() -> None:
    """lam .75 of 4 x 6 pixels: half of each side, 2 x 3, from row 2 - 1 and column 3 - 1."""
    boxes = boxes_of(torch.tensor([0.75]), at(0.5, 0.5), 4, 6)
    assert boxes.rows.tolist() == [[False, True, True, False]]
    assert boxes.columns.tolist() == [[False, False, True, True, True, False]]


def test_what_hangs_over_the_border_is_lost_and_lam_says_so() -> None:
    """The same box at the corner: of its 2 x 3 pixels 1 x 2 are inside."""
    boxes = boxes_of(torch.tensor([0.75]), at(0, 0), 4, 6)
    mixed, lam = cutmix(torch.ones(1, 3, 4, 6), torch.zeros(1, 3, 4, 6), boxes)
    assert (mixed[0, :, :1, :2] == 0).all()
    assert mixed.sum() == 3 * (24 - 2)
    assert lam.tolist() == pytest.approx([22 / 24])


def test_the_outlier_is_pasted_into_the_image_and_not_the_other_way_round() -> None:
    boxes = boxes_of(torch.tensor([0.96]), at(0.2, 0.2), 10, 10)
    mixed, lam = cutmix(torch.full((1, 1, 10, 10), 5.0), torch.full((1, 1, 10, 10), 7.0), boxes)
    assert lam.item() == pytest.approx(0.96)
    assert (mixed == 7).sum() == 4
    assert (mixed == 5).sum() == 96


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (1, 1)])
def test_lam_is_the_exact_share_of_the_image_that_is_left(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images, outliers = torch.ones(7, 2, height, width), torch.zeros(7, 2, height, width)
    for _ in range(50):
        asked = torch.rand(7, generator=generator)
        boxes = boxes_of(asked, torch.rand(7, 2, generator=generator), height, width)
        mixed, lam = cutmix(images, outliers, boxes)
        assert torch.allclose(lam, mixed.mean(dim=(1, 2, 3)))
        assert (lam >= asked - 1e-6).all(), "a box is never larger than asked for"


def test_every_pixel_can_be_the_centre_and_each_as_often() -> None:
    places = (torch.arange(800) / 800)[:, None].expand(800, 2)
    boxes = boxes_of(torch.full((800,), 1 - 1 / 64), places, 8, 8)  # boxes of one pixel
    assert boxes.rows.sum(dim=0).tolist() == boxes.columns.sum(dim=0).tolist() == [100] * 8


def test_one_box_for_a_whole_batch_is_pasted_into_every_image() -> None:
    boxes = boxes_of(torch.tensor([0.75]).expand(3), at(0.5, 0.5).expand(3, 2), 4, 4)
    assert isinstance(boxes, Boxes)
    mixed, _ = cutmix(torch.ones(3, 1, 4, 4), torch.zeros(3, 1, 4, 4), boxes)
    assert torch.equal(mixed[0], mixed[1]) and torch.equal(mixed[0], mixed[2])


@pytest.mark.parametrize(("lam", "left"), [(1.0, 1.0), (0.0, None)])
def test_the_ends_of_lam(lam: float, left: float | None) -> None:
    """lam 1 pastes nothing; lam 0 a box as large as the image, which the border may still cut."""
    boxes = boxes_of(torch.tensor([lam]), at(0.85, 0.6), 8, 8)
    _, found = cutmix(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), boxes)
    assert found.item() == left if left is not None else 0 <= found.item() < 0.8
