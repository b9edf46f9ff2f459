from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmoe_tune.methods.batch_norm import forward_groups

MODES = ("joint", "separate", "frozen")


class Net(nn.Module):
    """An affine network with BatchNorm; it remembers how many rows each forward had."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(
            6, momentum=1.0
        )  # the running statistics are those of the last batch
        self.last = nn.Linear(6, 3)
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.rows.append(len(images))
        return self.last(self.norm(self.first(images)))


def groups(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [number + torch.randn(size, 4, generator=generator) for number, size in enumerate(sizes)]


def statistics(model: Net, rows: Tensor) -> tuple[Tensor, Tensor]:
    hidden = rows @ model.first.weight.T + model.first.bias
    return hidden.mean(0), hidden.var(0, unbiased=True)


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("mode", MODES)
def test_every_group_gets_its_logits_in_order(mode) -> None:
    model, images = Net(), groups(5, 3, 2)
    logits = forward_groups(model, images, mode)
    assert [tuple(group.shape) for group in logits] == [(5, 3), (3, 3), (2, 3)]


def test_joint_is_one_forward_normalised_by_all_rows() -> None:
    model, images = Net(), groups(5, 3, 2)
    logits = forward_groups(model, images, "joint")
    assert model.rows == [10]
    mean, var = statistics(model, torch.cat(images))
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, var)
    assert model.norm.num_batches_tracked == 1
    torch.testing.assert_close(torch.cat(logits), model(torch.cat(images)))


def test_separate_is_a_forward_per_group_and_only_the_first_moves_the_statistics() -> None:
    model, images = Net(), groups(5, 3, 2)
    logits = forward_groups(model, images, "separate")
    assert model.rows == [5, 3, 2]
    mean, var = statistics(model, images[0])
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, var)
    assert model.norm.num_batches_tracked == 1
    for group, rows in zip(images, logits, strict=True):  # each group normalised by its own rows
        mean, var = statistics(model, group)
        hidden = group @ model.first.weight.T + model.first.bias
        biased = var * (len(group) - 1) / len(group)
        normalised = (hidden - mean) / (biased + model.norm.eps).sqrt()
        torch.testing.assert_close(rows, normalised @ model.last.weight.T + model.last.bias)


def test_frozen_leaves_the_buffers_untouched_and_normalises_by_them() -> None:
    model, images = Net(), groups(5, 3, 2)
    model.norm.running_mean.fill_(0.5)
    model.norm.running_var.fill_(4.0)
    before = buffers(model)
    logits = forward_groups(model, images, "frozen")
    assert model.rows == [10]
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    hidden = torch.cat(images) @ model.first.weight.T + model.first.bias
    normalised = (hidden - 0.5) / (4 + model.norm.eps) ** 0.5
    torch.testing.assert_close(
        torch.cat(logits), normalised @ model.last.weight.T + model.last.bias
    )


def test_frozen_still_trains_scale_and_shift() -> None:
    model = Net()
    torch.cat(forward_groups(model, groups(5, 3), "frozen")).square().sum().backward()
    assert model.norm.weight.grad.abs().sum() > 0
    assert model.norm.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_layers_are_as_before_afterwards(mode) -> None:
    model = Net().train()
    forward_groups(model, groups(5, 3), mode)
    assert model.norm.training
    assert model.norm.track_running_stats


@pytest.mark.parametrize("mode", MODES)
def test_the_layers_are_as_before_after_an_error(mode) -> None:
    model = Net().train()
    broken = [groups(5)[0], torch.zeros(2, 7)]
    with pytest.raises(RuntimeError):
        forward_groups(model, broken, mode)
    assert model.norm.training
    assert model.norm.track_running_stats


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_a_single_group_is_a_plain_training_forward(mode) -> None:
    model, plain, images = Net(), Net(), groups(5)
    torch.testing.assert_close(forward_groups(model, images, mode)[0], plain(images[0]))
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_only_separate_statistics_leave_a_floor_under_the_distance_of_an_affine_network(
    lam: float,
) -> None:
    """f(lam x + (1 - lam) o) = lam f(x) + (1 - lam) f(o) only where all rows are normalised alike."""
    images, outliers = groups(6, 6)
    mixed = lam * images + (1 - lam) * outliers
    for mode in MODES:
        z_id, z_out, z_in = forward_groups(Net(), [images, outliers, mixed], mode)
        floor = (z_in - (lam * z_id + (1 - lam) * z_out)).square().mean().item()
        if mode == "separate" and 0 < lam < 1:
            assert floor > 1e-3
        else:
            assert floor < 1e-10


@pytest.mark.parametrize("mode", MODES)
def test_a_network_without_batch_norm_does_not_care(mode) -> None:
    model, images = nn.Linear(4, 3), groups(5, 3)
    expected = model(torch.cat(images))
    torch.testing.assert_close(torch.cat(forward_groups(model, images, mode)), expected)
