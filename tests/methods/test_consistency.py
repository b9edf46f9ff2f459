from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmoe_tune.methods.logit_mixoe import DISTANCES, js, kl, mse, mse_log_softmax

NAMES = sorted(DISTANCES)

# Two pairs, three classes. The logarithms make the softmax rows (1/2, 1/4, 1/4) and (1/8, 5/8, 1/4) exactly.
Z_IN = [[math.log(2), 0.0, 0.0], [0.0, math.log(5), math.log(2)]]
# ... and (1/4, 1/4, 1/2) and (1/2, 3/8, 1/8).
Z_MIX = [[0.0, 0.0, math.log(2)], [math.log(4), math.log(3), 0.0]]
P_IN = [[1 / 2, 1 / 4, 1 / 4], [1 / 8, 5 / 8, 1 / 4]]
P_MIX = [[1 / 4, 1 / 4, 1 / 2], [1 / 2, 3 / 8, 1 / 8]]


def pairs(*rows: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(row, requires_grad=True) for row in rows]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_mse_is_the_mean_over_pairs_and_classes() -> None:
    squares = [
        math.log(2) ** 2,
        0,
        math.log(2) ** 2,
        math.log(4) ** 2,
        math.log(5 / 3) ** 2,
        math.log(2) ** 2,
    ]
    assert mse(*pairs(Z_IN, Z_MIX)).item() == pytest.approx(sum(squares) / 6, rel=1e-6)


def test_mse_log_softmax_compares_log_probabilities() -> None:
    squares = [
        math.log(p / q) ** 2
        for row_in, row_mix in zip(P_IN, P_MIX, strict=True)
        for p, q in zip(row_in, row_mix, strict=True)
    ]
    assert mse_log_softmax(*pairs(Z_IN, Z_MIX)).item() == pytest.approx(sum(squares) / 6, rel=1e-6)


def test_kl_goes_from_the_mixed_logits_to_those_of_the_mixed_input() -> None:
    expected = (divergence(P_MIX[0], P_IN[0]) + divergence(P_MIX[1], P_IN[1])) / 2
    other_way = (divergence(P_IN[0], P_MIX[0]) + divergence(P_IN[1], P_MIX[1])) / 2
    assert kl(*pairs(Z_IN, Z_MIX)).item() == pytest.approx(expected, rel=1e-6)
    assert abs(expected - other_way) > 0.01, "the example must tell the two directions apart"


def test_js_is_the_mean_divergence_from_the_middle() -> None:
    expected = 0.0
    for p, q in zip(P_IN, P_MIX, strict=True):
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        expected += (divergence(p, middle) + divergence(q, middle)) / 2 / 2
    assert js(*pairs(Z_IN, Z_MIX)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_logits_have_distance_zero_and_no_gradient(name: str) -> None:
    z_in, z_mix = pairs(Z_IN, Z_IN)
    distance = DISTANCES[name](z_in, z_mix)
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-7)
    assert z_in.grad.abs().max() < 1e-6
    assert z_mix.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_of_all_logits_counts_for_mse_alone(name: str) -> None:
    z_in, z_mix = pairs(Z_IN, Z_MIX)
    before, after = DISTANCES[name](z_in, z_mix).item(), DISTANCES[name](z_in + 3, z_mix).item()
    assert (abs(after - before) < 1e-5) == (name != "mse")


@pytest.mark.parametrize("name", ["mse", "mse_log_softmax", "js"])
def test_the_symmetric_distances_are_symmetric(name: str) -> None:
    z_in, z_mix = pairs(Z_IN, Z_MIX)
    assert DISTANCES[name](z_in, z_mix).item() == pytest.approx(
        DISTANCES[name](z_mix, z_in).item(), rel=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_distance_is_a_mean_over_its_pairs(name: str) -> None:
    z_in, z_mix = pairs(Z_IN, Z_MIX)
    once, thrice = (
        DISTANCES[name](z_in, z_mix),
        DISTANCES[name](z_in.repeat(3, 1), z_mix.repeat(3, 1)),
    )
    assert thrice.item() == pytest.approx(once.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_far_apart_logits_give_a_finite_distance_and_gradient(name: str) -> None:
    z_in, z_mix = pairs([[1000.0, 0.0, -1000.0]], [[-1000.0, 0.0, 1000.0]])
    distance = DISTANCES[name](z_in, z_mix)
    distance.backward()
    assert distance.isfinite()
    assert z_in.grad.isfinite().all()
    assert z_mix.grad.isfinite().all()
    if name == "js":
        assert distance.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z_in, z_mix = (
        torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(DISTANCES[name], (z_in, z_mix))
