"""The formula by hand on a 2 x 3 example, then against an independent reference in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.methods.logit_mixoe import LogitMixOE, margin
from lmoe_tune.methods.mixing import softened_target
from lmoe_tune.testing.methods import GivenDraws, draws_for, objective_of


def logit_mixoe(**params: Any) -> LogitMixOE:
    """The objective; what is not given has its declared default."""
    return objective_of("logit_mixoe", **params)  # type: ignore[return-value]


CONSISTENCIES = ("mse", "mse_log_softmax", "kl", "js")

# f squares its input, so that mixing before and after f differ. Two images of classes 0 and 1, two outliers.
X = [[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
O = [[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]  # noqa: E741 - the letter of the formula
LABELS = [0, 1]
# z_id = (4, 0, 1), (0, 1, 0)    z_out = (1, 1, 0), (0, 0, 4)    with lam = 3/4:
Z_MIX = [[3.25, 0.25, 0.75], [0.0, 0.75, 1.0]]
# The mixed inputs are (1.75, 0.25, 0.75), (0, 0.75, 0.5).
Z_IN = [[3.0625, 0.0625, 0.5625], [0.0, 0.5625, 0.25]]
ID_LOSS = (math.log(math.exp(4) + 1 + math.e) - 4 + math.log(1 + math.e + 1) - 1) / 2
# The soft targets are (10/12, 1/12, 1/12), (1/12, 10/12, 1/12).
MIX_LOSS = (
    math.log(math.exp(3.25) + math.exp(0.25) + math.exp(0.75)) - (32.5 + 0.25 + 0.75) / 12
    + math.log(1 + math.exp(0.75) + math.e) - (0.0 + 7.5 + 1.0) / 12
) / 2  # fmt: skip
OUTLIER_LOSS = (math.log(2 * math.e + 1) - 2 / 3 + math.log(2 + math.exp(4)) - 4 / 3) / 2
# Margins 3.25 - 0.75 and 0.75 - 1.
MARGIN = (2.5 - 0.25) / 2


class Square(nn.Module):
    """f(x) = w x^2 with w = 1, flattened; it remembers the rows of every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.rows.append(len(images))
        return self.weight * images.flatten(1) ** 2


def batch(pairs: tuple[int, ...] = (0, 1), outliers: list[list[float]] = O) -> Batch:
    return Batch(
        images=torch.tensor(X).view(2, 3, 1, 1),
        labels=torch.tensor(LABELS),
        outliers=torch.tensor(outliers).view(-1, 3, 1, 1),
        pairs=torch.tensor(pairs),
    )


def loss_of(
    lam: tuple[float, ...] = (0.75,), on: Batch | None = None, **settings: Any
) -> tuple[float, dict[str, float]]:
    found = logit_mixoe(**settings).loss(Square(), on or batch(), GivenDraws(*lam))
    return found.total.item(), {name: value.item() for name, value in found.logged.items()}


def approx(value: float) -> Any:
    return pytest.approx(value, rel=1e-6, abs=1e-7)


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def cross_entropy(row: list[float], target: list[float]) -> float:
    return -sum(t * log_p for t, log_p in zip(target, log_softmax(row), strict=True))


def test_the_terms_by_hand() -> None:
    total, logged = loss_of()
    consistency = (4 * 0.1875**2 + 0.75**2) / 6
    assert consistency == 0.1171875
    assert logged == {
        "id_loss": approx(ID_LOSS),
        "mix_loss": approx(MIX_LOSS),
        "consistency_loss": approx(0.1171875),
        "margin": approx(MARGIN),
    }
    assert total == approx(ID_LOSS + MIX_LOSS + 0.1171875)
    # once more as plain numbers, so that no slip is on both sides
    assert approx(0.3086643) == ID_LOSS
    assert approx(0.8188978) == MIX_LOSS
    assert total == approx(1.2447496)


def test_the_weights_by_hand() -> None:
    total, logged = loss_of(mix_weight=0.5, consistency_weight=8.0, outlier_weight=0.25)
    assert logged["outlier_loss"] == approx(OUTLIER_LOSS)
    assert approx(1.9489856) == OUTLIER_LOSS
    assert total == approx(ID_LOSS + 0.5 * MIX_LOSS + 8 * 0.1171875 + 0.25 * OUTLIER_LOSS)


def distance_by_hand(name: str, z_in: list[list[float]], z_mix: list[list[float]]) -> float:
    total = 0.0
    for row_in, row_mix in zip(z_in, z_mix, strict=True):
        log_in, log_mix = log_softmax(row_in), log_softmax(row_mix)
        p_in, p_mix = ([math.exp(value) for value in row] for row in (log_in, log_mix))
        if name == "mse":
            total += sum((a - b) ** 2 for a, b in zip(row_in, row_mix, strict=True)) / 3
        elif name == "mse_log_softmax":
            total += sum((a - b) ** 2 for a, b in zip(log_in, log_mix, strict=True)) / 3
        elif name == "kl":
            total += sum(p * (a - b) for p, a, b in zip(p_mix, log_mix, log_in, strict=True))
        else:
            middle = [math.log((a + b) / 2) for a, b in zip(p_in, p_mix, strict=True)]
            total += sum(p * (a - m) for p, a, m in zip(p_in, log_in, middle, strict=True)) / 2
            total += sum(p * (a - m) for p, a, m in zip(p_mix, log_mix, middle, strict=True)) / 2
    return total / len(z_in)


@pytest.mark.parametrize("center_logits", [False, True])
@pytest.mark.parametrize("consistency", CONSISTENCIES)
def test_every_distance_by_hand(consistency: str, center_logits: bool) -> None:
    z_in, z_mix = Z_IN, Z_MIX
    if center_logits:
        z_in, z_mix = ([[v - sum(row) / 3 for v in row] for row in z] for z in (Z_IN, Z_MIX))
    total, logged = loss_of(
        consistency=consistency, center_logits=center_logits, consistency_weight=2.0
    )
    expected = distance_by_hand(consistency, z_in, z_mix)
    assert logged["consistency_loss"] == approx(expected)
    assert total == approx(ID_LOSS + MIX_LOSS + 2 * expected)


def test_centred_logits_by_hand() -> None:
    """The first pair differs by the same 0.1875 everywhere: nothing is left of it once rows are centred."""
    _, logged = loss_of(center_logits=True)
    mean = (0.1875 + 0.75) / 3
    assert logged["consistency_loss"] == approx(
        (mean**2 + (0.1875 - mean) ** 2 + (0.75 - mean) ** 2) / 6
    )


def test_a_weight_per_pair_by_hand() -> None:
    _, logged = loss_of(lam=(0.75, 0.5), per="sample")
    z_mix = [[3.25, 0.25, 0.75], [0.0, 0.5, 2.0]]
    z_in = [[3.0625, 0.0625, 0.5625], [0.0, 0.25, 1.0]]
    targets = [[10 / 12, 1 / 12, 1 / 12], [1 / 6, 4 / 6, 1 / 6]]
    mix_losses = [cross_entropy(*pair) for pair in zip(z_mix, targets, strict=True)]
    assert logged["mix_loss"] == approx(sum(mix_losses) / 2)
    assert logged["consistency_loss"] == approx(distance_by_hand("mse", z_in, z_mix))
    assert logged["margin"] == approx((2.5 - 1.5) / 2)


def test_fewer_outliers_than_images_by_hand() -> None:
    """The mixed terms are means over the one pair; the in-distribution term over both images."""
    _, logged = loss_of(on=batch(pairs=(0,), outliers=O[:1]), outlier_weight=1.0)
    assert logged["id_loss"] == approx(ID_LOSS)
    assert logged["mix_loss"] == approx(cross_entropy(Z_MIX[0], [10 / 12, 1 / 12, 1 / 12]))
    assert logged["consistency_loss"] == approx(0.1875**2)
    assert logged["outlier_loss"] == approx(math.log(2 * math.e + 1) - 2 / 3)
    assert logged["margin"] == approx(2.5)


def test_more_outliers_than_images_by_hand() -> None:
    """The third outlier is mixed with the first image again."""
    _, logged = loss_of(on=batch(pairs=(0, 1, 0), outliers=[*O, [0.0, 2.0, 0.0]]))
    third_mix = [3.0, 1.0, 0.75]  # 3/4 (4, 0, 1) + 1/4 (0, 4, 0)
    third_in = [2.25, 0.25, 0.5625]  # (1.5, 0.5, 0.75) squared
    third_loss = cross_entropy(third_mix, [10 / 12, 1 / 12, 1 / 12])
    assert logged["mix_loss"] == approx((2 * MIX_LOSS + third_loss) / 3)
    squares = 6 * 0.1171875 + 0.75**2 + 0.75**2 + 0.1875**2
    assert logged["consistency_loss"] == approx(squares / 9)
    assert logged["consistency_loss"] == approx(
        distance_by_hand("mse", [*Z_IN, third_in], [*Z_MIX, third_mix])
    )
    assert logged["margin"] == approx((2.5 - 0.25 + 2.0) / 3)


def test_lam_of_one_is_all_image_and_lam_of_zero_all_outlier() -> None:
    _, logged = loss_of(lam=(1.0,))
    assert logged["mix_loss"] == approx(ID_LOSS)
    assert logged["consistency_loss"] == 0
    _, logged = loss_of(lam=(0.0,))
    assert logged["mix_loss"] == approx(OUTLIER_LOSS)
    assert logged["consistency_loss"] == 0


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [2, 3, 3]),
        ({"consistency_weight": 0.0}, [2, 3]),
        ({"consistency_weight": 0.0, "outlier_weight": 1.0}, [2, 3]),
        ({"mix_weight": 0.0}, [2, 3, 3]),
        ({"mix_weight": 0.0, "consistency_weight": 0.0, "outlier_weight": 1.0}, [2, 3]),
        ({"mix_weight": 0.0, "consistency_weight": 0.0}, [2]),
    ],
)
@pytest.mark.parametrize("mode", ["joint", "separate", "frozen"])
def test_a_term_of_weight_zero_costs_no_forward(
    settings: dict[str, float], rows: list[int], mode: str
) -> None:
    model = Square()
    three = batch(pairs=(0, 1, 0), outliers=[*O, [0.0, 2.0, 0.0]])
    found = logit_mixoe(batch_norm=mode, **settings).loss(model, three, draws_for(three))
    assert model.rows == (rows if mode == "separate" else [sum(rows)])
    logged = set(found.logged)
    assert ("mix_loss" in logged) == (settings.get("mix_weight", 1) > 0)
    assert ("consistency_loss" in logged) == (settings.get("consistency_weight", 1) > 0)
    assert ("outlier_loss" in logged) == (settings.get("outlier_weight", 0) > 0)
    assert ("margin" in logged) == (len(rows) > 1)


def test_with_all_weights_zero_it_is_cross_entropy() -> None:
    total, logged = loss_of(mix_weight=0.0, consistency_weight=0.0)
    assert total == approx(ID_LOSS)
    assert logged == {"id_loss": approx(ID_LOSS)}


def test_the_gradient_passes_both_sides_by_default() -> None:
    z_in, z_mix = (torch.tensor(z, requires_grad=True) for z in (Z_IN, Z_MIX))
    logit_mixoe().distance(z_in, z_mix).backward()
    # 2 (z_in - z_mix) / 6
    expected = torch.tensor([[-0.0625, -0.0625, -0.0625], [0.0, -0.0625, -0.25]])
    torch.testing.assert_close(z_in.grad, expected)
    torch.testing.assert_close(z_mix.grad, -expected)


@pytest.mark.parametrize("center_logits", [False, True])
@pytest.mark.parametrize("consistency", CONSISTENCIES)
def test_the_stopped_side_gets_no_gradient_and_the_other_the_same_as_ever(
    consistency: str, center_logits: bool
) -> None:
    def gradients(stop_gradient: str) -> list[Tensor | None]:
        z_in, z_mix = (torch.tensor(z, requires_grad=True) for z in (Z_IN, Z_MIX))
        objective = logit_mixoe(
            consistency=consistency, center_logits=center_logits, stop_gradient=stop_gradient
        )
        objective.distance(z_in, z_mix).backward()
        return [z_in.grad, z_mix.grad]

    both, no_mixed, no_input = (gradients(side) for side in ("none", "mixed_logits", "mixed_input"))
    assert both[0].abs().sum() > 0
    assert both[1].abs().sum() > 0
    assert no_mixed[1] is None
    assert no_input[0] is None
    torch.testing.assert_close(no_mixed[0], both[0])
    torch.testing.assert_close(no_input[1], both[1])


def test_the_gradient_is_stopped_inside_the_distance_only() -> None:
    """Stopping the mixed logits must not take their cross-entropy's gradient away."""
    model = Square()
    found = logit_mixoe(stop_gradient="mixed_logits", consistency_weight=1e-30).loss(
        model, batch(), GivenDraws(0.75)
    )
    (stopped,) = torch.autograd.grad(found.total, model.weight)
    plain = logit_mixoe(consistency_weight=0.0).loss(model, batch(), GivenDraws(0.75))
    (expected,) = torch.autograd.grad(plain.total, model.weight)
    torch.testing.assert_close(stopped, expected)


def test_what_is_logged_holds_no_graph() -> None:
    found = logit_mixoe(outlier_weight=1.0).loss(Square(), batch(), GivenDraws(0.75))
    assert found.total.requires_grad
    assert not any(value.requires_grad for value in found.logged.values())


# --- lambda ---


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_lambda_is_asked_for_with_the_alpha_and_for_whom(per: str) -> None:
    draws = GivenDraws(0.75)
    logit_mixoe(mixing_alpha=0.7, per=per).loss(Square(), batch(), draws)
    assert draws.asked == (0.7, None, per)


# --- target and margin ---


def test_the_softened_target_by_hand() -> None:
    found = softened_target(torch.tensor([2, 0]), torch.tensor([0.75, 0.0]), 4)
    expected = [[0.0625, 0.0625, 0.8125, 0.0625], [0.25] * 4]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_softened_target_is_a_distribution() -> None:
    lam = torch.rand(50, generator=torch.Generator().manual_seed(0))
    found = softened_target(torch.arange(50) % 6, lam, 6)
    torch.testing.assert_close(found.sum(1), torch.ones(50))
    assert (found.argmax(1) == torch.arange(50) % 6).all()


def test_the_margin_by_hand() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0], [-2.0, -4.0, 1.0]])
    assert margin(logits, torch.tensor([0, 1])).item() == (2.0 - 5.0) / 2


# --- BatchNorm ---


class Affine(nn.Module):
    """Convolution, BatchNorm, linear: affine in its input once the statistics are given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(images)).mean((2, 3)))


def random_batch(size: int = 4, num_outliers: int = 4, side: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batch(
        images=torch.randn(size, 1, side, side, generator=generator),
        labels=torch.arange(size) % 3,
        outliers=2 + 3 * torch.randn(num_outliers, 1, side, side, generator=generator),
        pairs=torch.arange(num_outliers) % size,
    )


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_the_distance_of_an_affine_network_has_the_floor_zero_with_joint_statistics(
    lam: float,
) -> None:
    found = logit_mixoe(batch_norm="joint").loss(Affine(), random_batch(), GivenDraws(lam))
    assert found.logged["consistency_loss"].item() < 1e-10


def test_with_separate_statistics_it_has_not() -> None:
    found = logit_mixoe(batch_norm="separate").loss(Affine(), random_batch(), GivenDraws(0.4))
    assert found.logged["consistency_loss"].item() > 1e-3


@pytest.mark.parametrize("mode", ["joint", "separate", "frozen"])
def test_which_rows_move_the_running_statistics(mode: str) -> None:
    model, data = Affine(), random_batch()
    model.norm.momentum = 1.0
    logit_mixoe(batch_norm=mode).loss(model, data, GivenDraws(0.4))
    mixed = 0.4 * data.images + 0.6 * data.outliers
    rows = {"joint": torch.cat([data.images, data.outliers, mixed]), "separate": data.images}.get(
        mode
    )
    if rows is None:
        assert (model.norm.running_mean == 0).all()
        assert (model.norm.running_var == 1).all()
        assert model.norm.num_batches_tracked == 0
    else:
        torch.testing.assert_close(model.norm.running_mean, model.conv(rows).mean((0, 2, 3)))
        assert model.norm.num_batches_tracked == 1


# --- an independent reference in float64 ---


class Net(nn.Module):
    """Linear, tanh, linear."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.first = nn.Parameter(torch.randn(9, 6, generator=generator) / 3)
        self.last = nn.Parameter(2 * torch.randn(6, 5, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) @ self.first).tanh() @ self.last


def reference_loss(net: Net, data: Batch, lam: list[float], settings: dict[str, Any]) -> Tensor:
    """The sum of the formula, pair by pair, as one would write it down; D in its textbook form."""

    def f(image: Tensor) -> Tensor:
        return (image.double().flatten() @ net.first).tanh() @ net.last

    def log_p(z: Tensor) -> Tensor:
        return z - z.exp().sum().log()

    num_classes = 5
    num_images, num_pairs = len(data.images), len(data.outliers)
    total = torch.zeros((), dtype=torch.float64)
    for image, label in zip(data.images, data.labels, strict=True):
        total = total - log_p(f(image))[label] / num_images
    for j in range(num_pairs):
        i, weight = int(data.pairs[j]), lam[j]
        label = int(data.labels[i])
        z_out = f(data.outliers[j])
        z_mix = weight * f(data.images[i]) + (1 - weight) * z_out
        z_in = f(weight * data.images[i].double() + (1 - weight) * data.outliers[j].double())
        for k in range(num_classes):
            target = (1 - weight) / num_classes + (weight if k == label else 0)
            total = total - settings["mix_weight"] * target * log_p(z_mix)[k] / num_pairs
        total = total - settings["outlier_weight"] * log_p(z_out).mean() / num_pairs

        a, b = z_in, z_mix
        if settings["stop_gradient"] == "mixed_logits":
            b = torch.tensor(b.tolist(), dtype=torch.float64)
        elif settings["stop_gradient"] == "mixed_input":
            a = torch.tensor(a.tolist(), dtype=torch.float64)
        if settings["center_logits"]:
            a, b = a - a.sum() / num_classes, b - b.sum() / num_classes
        p, q = log_p(b).exp(), log_p(a).exp()
        if settings["consistency"] == "mse":
            distance = ((a - b) ** 2).sum() / num_classes
        elif settings["consistency"] == "mse_log_softmax":
            distance = ((p.log() - q.log()) ** 2).sum() / num_classes
        elif settings["consistency"] == "kl":
            distance = (p * (p / q).log()).sum()
        else:
            middle = (p + q) / 2
            distance = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
        total = total + settings["consistency_weight"] * distance / num_pairs
    return total


GRID = list(
    itertools.product(
        ("none", "mixed_logits", "mixed_input"), (False, True), ("batch", "sample"), (2, 4, 7)
    )
)


@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("consistency", CONSISTENCIES)
def test_loss_and_gradients_are_those_of_the_reference(consistency: str, mode: str) -> None:
    for stop_gradient, center_logits, per, num_outliers in GRID:
        compare_with_reference(consistency, stop_gradient, center_logits, per, num_outliers, mode)


def compare_with_reference(
    consistency: str,
    stop_gradient: str,
    center_logits: bool,
    per: str,
    num_outliers: int,
    mode: str,
) -> None:
    settings: dict[str, Any] = {
        "consistency": consistency,
        "stop_gradient": stop_gradient,
        "center_logits": center_logits,
        "mix_weight": 0.7,
        "consistency_weight": 1.9,
        "outlier_weight": 0.3,
    }
    data = random_batch(num_outliers=num_outliers)
    lam = draws_for(data, seed=9).beta(0.8, per=per).tolist()

    net = Net()
    objective = logit_mixoe(mixing_alpha=0.8, per=per, batch_norm=mode, **settings)
    found = objective.loss(net, data, draws_for(data, seed=9)).total
    gradients = torch.autograd.grad(found, list(net.parameters()))

    exact = Net().double()
    expected = reference_loss(exact, data, lam, settings)
    expected_gradients = torch.autograd.grad(expected, list(exact.parameters()))

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5 * scale)
