"""MixOE, Outlier Exposure and Energy-OE: by hand, then against independent references in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.methods.baseline import CrossEntropy
from lmoe_tune.methods.energy_oe import EnergyOE
from lmoe_tune.methods.mixoe import MixOE
from lmoe_tune.methods.objective import Objective
from lmoe_tune.methods.outlier_exposure import OutlierExposure
from lmoe_tune.testing.methods import GivenDraws, draws_for, objective_of

LN2 = math.log(2)
NAMES: dict[type[Objective], str] = {
    CrossEntropy: "baseline",
    OutlierExposure: "outlier_exposure",
    EnergyOE: "energy_oe",
    MixOE: "mixoe",
}


def made(kind: type[Objective], **params: Any) -> Any:
    """The objective; what is not given has its declared default."""
    return objective_of(NAMES[kind], **params)


class Logits(nn.Module):
    """f(x) = w x with w = 1: the images, flattened, are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.flatten(1)


def batch(
    images: list[list[float]], labels: list[int], outliers: list[list[float]], side: int = 1
) -> Batch:
    return Batch(
        images=torch.tensor(images).view(len(images), -1, side, side),
        labels=torch.tensor(labels),
        outliers=torch.tensor(outliers).reshape(
            len(outliers), len(images[0]) // side**2, side, side
        ),
        pairs=torch.arange(len(outliers)) % len(images),
    )


def measured(objective: Objective, data: Batch, draws: StepDraws | None = None) -> dict[str, float]:
    found = objective.loss(Logits(), data, draws or draws_for(data))
    return {"total": found.total.item()} | {
        name: value.item() for name, value in found.logged.items()
    }


def approx(expected: dict[str, float]) -> Any:
    return pytest.approx(expected, rel=1e-6, abs=1e-7)


# Softmax (4/8, 2/8, 1/8, 1/8) of class 0 and (1/8, 1/8, 2/8, 4/8) of class 2: CE = (ln 2 + ln 4) / 2 = 1.5 ln 2.
IMAGES, LABELS = [[2 * LN2, LN2, 0.0, 0.0], [0.0, 0.0, LN2, 2 * LN2]], [0, 2]
# The same shape mirrored, and a flat one: CE with the uniform target is 2.25 ln 2 and 2 ln 2.
OUTLIERS = [[0.0, 0.0, LN2, 2 * LN2], [5.0, 5.0, 5.0, 5.0]]


def test_the_baseline_by_hand() -> None:
    expected = 1.5 * LN2
    assert measured(
        made(
            CrossEntropy,
        ),
        batch(IMAGES, LABELS, []),
    ) == approx({"total": expected, "id_loss": expected})


def test_outlier_exposure_by_hand() -> None:
    """-(log 1/8 + log 1/8 + log 2/8 + log 4/8) / 4 = 9/4 ln 2, and ln 4 of the flat one."""
    data = batch(IMAGES, LABELS, OUTLIERS)
    expected = {"id_loss": 1.0397208, "outlier_loss": 1.4729378}
    assert expected == approx({"id_loss": 1.5 * LN2, "outlier_loss": (2.25 + 2) / 2 * LN2})
    assert measured(
        made(
            OutlierExposure,
        ),
        data,
    ) == approx({"total": 2.5126586} | expected)
    assert measured(made(OutlierExposure, outlier_weight=0.5), data)["total"] == pytest.approx(
        1.0397208 + 0.5 * 1.4729378
    )


def test_each_mean_of_outlier_exposure_is_over_its_own_rows() -> None:
    """Ten times the same outlier change nothing; a mean over all rows would."""
    few, many = (batch(IMAGES, LABELS, [OUTLIERS[0]] * count) for count in (2, 20))
    assert measured(
        made(
            OutlierExposure,
        ),
        few,
    ) == approx(
        measured(
            made(
                OutlierExposure,
            ),
            many,
        )
    )
    assert measured(
        made(
            OutlierExposure,
        ),
        few,
    )["outlier_loss"] == pytest.approx(2.25 * LN2)


def test_energy_oe_by_hand() -> None:
    """logsumexp: ln 8 of both images; ln 8 of the first outlier, and 5 + ln 4 of the flat one."""
    data = batch(IMAGES, LABELS, OUTLIERS)
    found = measured(made(EnergyOE, energy_weight=0.5, m_in=-3.0, m_out=-4.0), data)
    too_high = (3 - 3 * LN2) ** 2  # E = -2.0794 should be below -3, of both
    too_low = (0 + (5 + 2 * LN2 - 4) ** 2) / 2  # -2.0794 is above -4; -6.3863 is not
    assert too_high == pytest.approx(0.8474279)
    assert too_low == pytest.approx(2.8472005)
    assert found == approx(
        {"total": 1.0397208 + 0.5 * 3.6946284, "id_loss": 1.0397208, "energy_loss": 3.6946284}
    )


def test_energies_within_their_margins_cost_nothing() -> None:
    data = batch(IMAGES, LABELS, OUTLIERS)
    assert measured(made(EnergyOE, m_in=-2.0, m_out=-7.0), data)["energy_loss"] == 0


@pytest.mark.parametrize(
    ("num_classes", "m_in", "m_out"), [(2, -10.693147, -1.693147), (100, -14.605170, -5.605170)]
)
def test_the_default_margins_follow_the_number_of_classes(
    num_classes: int, m_in: float, m_out: float
) -> None:
    z_id, z_out = (
        torch.linspace(0, scale, 3 * num_classes).view(3, num_classes) for scale in (2, 9)
    )
    given = made(EnergyOE, m_in=m_in, m_out=m_out).energy_loss(z_id, z_out)
    assert made(
        EnergyOE,
    ).energy_loss(z_id, z_out).item() == pytest.approx(given.item(), rel=1e-5)


def test_mixup_by_hand() -> None:
    """lam 1/2: the mixture of the first pair is (1, .5, .5, 1) ln 2, with target (5, 1, 1, 1) / 8."""
    data = batch(IMAGES[:1], LABELS[:1], OUTLIERS[:1])
    log_sum = math.log(2 + math.sqrt(2) + math.sqrt(2) + 2)
    expected = log_sum - (5 * 1 + 0.5 + 0.5 + 1) / 8 * LN2
    assert expected == pytest.approx(1.3145906)
    found = measured(
        made(
            MixOE,
        ),
        data,
        GivenDraws(0.5),
    )
    assert found == approx({"total": LN2 + 5 * 1.3145906, "id_loss": LN2, "mix_loss": 1.3145906})
    found = measured(made(MixOE, mix_weight=0.5, mixing_alpha=3.0), data, GivenDraws(0.5))
    assert found["total"] == pytest.approx(LN2 + 0.5 * 1.3145906)


def test_cutmix_by_hand() -> None:
    """One channel of 2 x 2 pixels, lam .75: a box of one pixel at (1, 1), the fourth logit; 3/4 of the image is left.

    (2, 1, 0, 0) ln 2 becomes (2, 1, 0, 2) ln 2, softmax (4, 2, 1, 4) / 11, target (13, 1, 1, 1) / 16.
    """
    data = batch(IMAGES[:1], LABELS[:1], OUTLIERS[:1], side=2)
    expected = math.log(11) - (13 * 2 + 1 + 0 + 2) / 16 * LN2
    assert expected == pytest.approx(1.1415661)
    found = measured(made(MixOE, mixing="cutmix"), data, GivenDraws(0.75))
    assert found == approx({"total": LN2 + 5 * 1.1415661, "id_loss": LN2, "mix_loss": 1.1415661})


def test_the_target_of_cutmix_has_the_lam_that_came_out_and_not_the_one_drawn() -> None:
    """lam .7 asks for .5477 of each side, which is one pixel of two: 3/4 of the image is left, as with .75."""
    data = batch(IMAGES[:1], LABELS[:1], OUTLIERS[:1], side=2)
    found = [measured(made(MixOE, mixing="cutmix"), data, GivenDraws(lam)) for lam in (0.7, 0.75)]
    assert found[0] == found[1]


@pytest.mark.parametrize(("mixing", "alpha"), [("mixup", 1.0), ("cutmix", 2.0)])
def test_mixoe_has_the_published_settings_by_default(mixing: Any, alpha: float) -> None:
    data = batch(IMAGES, LABELS, OUTLIERS, side=2)
    drawn = GivenDraws(0.6)
    found = measured(made(MixOE, mixing=mixing), data, drawn)
    assert drawn.asked == (alpha, None, "batch")
    assert found["total"] == pytest.approx(found["id_loss"] + 5 * found["mix_loss"])


# --- independent references in float64 ---


class Net(nn.Module):
    """Linear, tanh, linear; computes in the type of its weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.first = nn.Parameter(torch.randn(32, 6, generator=generator) / 4)
        self.last = nn.Parameter(2 * torch.randn(6, num_classes, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1).to(self.first.dtype) @ self.first).tanh() @ self.last


def random_batch(num_images: int, num_outliers: int, num_classes: int, dtype: torch.dtype) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batch(
        images=torch.randn(num_images, 2, 4, 4, generator=generator).to(dtype),
        labels=torch.arange(num_images) % num_classes,
        outliers=(1 + 2 * torch.randn(num_outliers, 2, 4, 4, generator=generator)).to(dtype),
        pairs=torch.arange(num_outliers) % num_images,
    )


def probabilities(z: Tensor) -> list[Tensor]:
    powers = [value.exp() for value in z]
    return [power / sum(powers) for power in powers]


def mixtures(data: Batch, settings: dict[str, Any]) -> list[tuple[Tensor, float]]:
    """Every mixture and its lam, pixel by pixel, from draws with the objective's seed."""
    draws = draws_for(data, seed=9)
    lams = draws.beta(settings["mixing_alpha"], per=settings["per"]).tolist()
    places = draws.uniforms("box", 2, per=settings["per"]).tolist()
    centres = [(int(4 * row), int(4 * column)) for row, column in places]
    found = []
    for j, lam in enumerate(lams):
        image, outlier = data.images[data.pairs[j]].double(), data.outliers[j].double()
        if settings["mixing"] == "mixup":
            found.append((lam * image + (1 - lam) * outlier, lam))
            continue
        mixed, pasted = image.clone(), 0
        side = int(4 * math.sqrt(1 - lam))
        for row in range(4):
            for column in range(4):
                above, left = centres[j][0] - side // 2, centres[j][1] - side // 2
                if above <= row < above + side and left <= column < left + side:
                    mixed[:, row, column] = outlier[:, row, column]
                    pasted += 1
        found.append((mixed, 1 - pasted / 16))
    return found


def reference(net: Net, data: Batch, objective: Objective, settings: dict[str, Any]) -> Tensor:
    """The formulas, row by row and class by class."""
    num_classes = net.last.shape[1]

    def f(image: Tensor) -> Tensor:
        return net(image.double()[None])[0]

    total = torch.zeros((), dtype=torch.float64)
    for image, label in zip(data.images, data.labels, strict=True):
        total = total - probabilities(f(image))[label].log() / len(data.images)
    if isinstance(objective, MixOE):
        pairs = mixtures(data, settings)
        for (mixed, lam), i in zip(pairs, data.pairs, strict=True):
            p = probabilities(f(mixed))
            for k in range(num_classes):
                target = (1 - lam) / num_classes + (lam if k == data.labels[i] else 0)
                total = total - settings["mix_weight"] * target * p[k].log() / len(pairs)
    elif isinstance(objective, OutlierExposure):
        for outlier in data.outliers:
            cross = -sum(p.log() for p in probabilities(f(outlier))) / num_classes
            total = total + settings["outlier_weight"] * cross / len(data.outliers)
    elif isinstance(objective, EnergyOE):
        for image in data.images:
            hinge = (-f(image).exp().sum().log() - settings["m_in"]).clamp(min=0)
            total = total + settings["energy_weight"] * hinge**2 / len(data.images)
        for outlier in data.outliers:
            hinge = (settings["m_out"] + f(outlier).exp().sum().log()).clamp(min=0)
            total = total + settings["energy_weight"] * hinge**2 / len(data.outliers)
    return total


CASES: list[tuple[type[Objective], dict[str, Any]]] = [
    (CrossEntropy, {}),
    (OutlierExposure, {"outlier_weight": 0.7}),
    (EnergyOE, {"energy_weight": 0.3, "m_in": -2.5, "m_out": -2.0}),
    *[
        (MixOE, {"mixing": mixing, "mixing_alpha": 0.8, "mix_weight": 1.7, "per": per})
        for mixing in ("mixup", "cutmix")
        for per in ("batch", "sample")
    ],
]


GRID = list(
    itertools.product(
        ((4, 4, 5), (5, 2, 2), (3, 7, 3)), ("joint", "separate"), (torch.float32, torch.bfloat16)
    )
)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_loss_and_gradients_are_those_of_the_reference(
    kind: type[Objective], settings: dict[str, Any]
) -> None:
    for sizes, mode, dtype in GRID:
        compare_with_reference(kind, settings, *sizes, mode, dtype)


def compare_with_reference(
    kind: type[Objective],
    settings: dict[str, Any],
    num_images: int,
    num_outliers: int,
    num_classes: int,
    mode: str,
    dtype: torch.dtype,
) -> None:
    data = random_batch(num_images, num_outliers, num_classes, dtype)
    net, exact = Net(num_classes), Net(num_classes).double()
    objective = made(kind, **settings, **({} if kind is CrossEntropy else {"batch_norm": mode}))
    found = objective.loss(net, data, draws_for(data, seed=9)).total
    gradients = torch.autograd.grad(found, list(net.parameters()))

    expected = reference(exact, data, objective, settings)
    expected_gradients = torch.autograd.grad(expected, list(exact.parameters()))

    assert found.item() == pytest.approx(expected.item(), rel=2e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5 * scale)


class Rounded(nn.Module):
    """Logits in bf16, as a network without an fp32 head gives them."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).bfloat16()


@pytest.mark.parametrize(("kind", "settings"), [case for case in CASES if case[0] is not MixOE])
def test_bf16_logits_are_taken_as_the_numbers_they_are(
    kind: type[Objective], settings: dict[str, Any]
) -> None:
    """The losses of logits that bf16 has exactly are those of fp32, to the last digits."""
    generator = torch.Generator().manual_seed(0)
    images, outliers = (
        torch.randn(count, 8, 1, 1, generator=generator).bfloat16().float() for count in (6, 4)
    )
    data = Batch(images=images, labels=torch.arange(6), outliers=outliers, pairs=torch.arange(4))
    rounded, exact = (
        made(kind, **settings).loss(model, data, draws_for(data)).total
        for model in (Rounded(), nn.Flatten())
    )
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-6)
