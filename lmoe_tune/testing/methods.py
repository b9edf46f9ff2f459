"""What every method must do.

from lmoe_tune.testing.methods import MethodCase

class TestEntropyMargin(MethodCase):
    method = EntropyMargin
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import EpochDraws, Per, StepDraws
from lmoe_tune.methods.objective import Objective, StepLoss, checked
from lmoe_tune.model import SmallCNN
from lmoe_tune.spec import Parameter
from trainables.method import Method, load_method

NUM_CLASSES = 5
NUM_STEPS = 4
SIZES = ((6, 4), (6, 2), (3, 7), (2, 2), (5, 5))  # images and outliers of a batch


class MethodCase:
    """Inherit from it and set `method` to the class.

    The tests need no fixture. Each goes over the method's default and over a few values of every
    parameter.
    """

    method: ClassVar[type[Method]]

    def objective(self, **params: Any) -> Objective:
        """The method's objective; what is not given has its default."""
        method = self.method()
        return method.objective(method.declaration.resolve(params))

    def batch(self, objective: Objective, size: int = 6, num_outliers: int = 4) -> Batch:
        """Random images, with outliers where the objective takes any."""
        if objective.outlier_ratio == 0:
            num_outliers = 0
        return random_batch(size, num_outliers)

    def variants(self) -> list[dict[str, Any]]:
        """No parameter, then each parameter alone at a few of its values."""
        alone = [
            {parameter.name: value}
            for parameter in self.method.declaration.parameters
            for value in examples(parameter)
        ]
        return [{}, *alone]

    def test_every_parameter_has_a_meaning_and_a_default(self) -> None:
        for parameter in self.method.declaration.parameters:
            assert parameter.help, parameter.name
            assert parameter.default is not None or "default: " in parameter.help, (
                f"{parameter.name}: without a default, its help must say what is taken"
            )

    def test_it_takes_outliers_where_its_declaration_says_so_and_only_there(self) -> None:
        assert (self.objective().outlier_ratio > 0) == self.method.declaration.needs_outliers

    def test_the_loss_is_a_finite_number_and_so_are_the_gradients(self) -> None:
        for params in self.variants():
            objective = self.objective(**params)
            for size, num_outliers in SIZES:
                assert_sound(objective, self.batch(objective, size, num_outliers))

    def test_the_loss_depends_on_the_head_and_on_the_first_layer(self) -> None:
        model, objective = network(), self.objective()
        loss_of(objective, self.batch(objective), model).total.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in model.parameters()]
        assert all(gradient is not None for gradient in gradients)
        assert gradients[0].abs().sum() > 0 and gradients[-1].abs().sum() > 0  # type: ignore[union-attr]

    def test_under_bf16_the_loss_stays_in_fp32_and_near_its_value(self) -> None:
        for params in self.variants():
            objective = self.objective(**params)
            data = self.batch(objective)
            exact = loss_of(objective, data).total.item()
            with torch.autocast("cpu", torch.bfloat16):
                assert_sound(objective, data)
                rough = replace(
                    data, images=data.images.bfloat16(), outliers=data.outliers.bfloat16()
                )
                assert_sound(objective, rough)
                rounded = loss_of(objective, data).total.item()
            assert abs(rounded - exact) <= 0.03 * abs(exact), f"{params}: {rounded} for {exact}"

    def test_large_and_constant_images_are_no_trouble(self) -> None:
        objective = self.objective()
        data = self.batch(objective)
        assert_sound(objective, scaled(data, 1e4), all_weights=False)
        for level in (0.0, 1.0):
            assert_sound(objective, scaled(data, 0.0, level), all_weights=False)

    def test_two_classes_are_enough(self) -> None:
        objective = self.objective()
        data = self.batch(objective)
        assert_sound(objective, replace(data, labels=data.labels % 2), network(num_classes=2))

    def test_the_same_draws_give_the_same_loss_whatever_ran_before(self) -> None:
        for params in self.variants():
            objective, losses = self.objective(**params), []
            data, untouched = self.batch(objective), self.batch(objective)
            for noise in (1, 2):
                model = network()
                random.seed(noise)
                np.random.seed(noise)
                torch.manual_seed(0)  # the training loop does so before every step
                losses.append(loss_of(objective, data, model).total)
            assert torch.equal(losses[0], losses[1]), params
            for name, value in vars(data).items():
                assert torch.equal(value, getattr(untouched, name)), f"the loss changed {name}"

    def test_every_step_has_the_same_terms(self) -> None:
        for params in self.variants():
            objective = self.objective(**params)
            terms = {
                frozenset(found.logged)
                for found in losses_of_steps(objective, self.batch(objective))
            }
            assert len(terms) == 1, f"{params}: {[sorted(some) for some in terms]}"

    def test_it_keeps_nothing_from_one_step_to_the_next(self) -> None:
        """A trial that continues after a kill begins with a method that has seen no step."""
        objective, model = self.objective(), network()
        data = self.batch(objective)
        losses_of_steps(objective, data, model)
        fresh = self.objective()
        of_both = [
            objective_.loss(deepcopy(model), data, draws_for(data, step=NUM_STEPS - 1)).total
            for objective_ in (objective, fresh)
        ]
        assert torch.equal(*of_both), "what it keeps on itself is lost when a trial continues"

    def test_without_its_weights_only_the_in_distribution_term_is_left(self) -> None:
        weights = [
            parameter.name
            for parameter in self.method.declaration.parameters
            if parameter.name.endswith("_weight") and parameter.accepts(0)
        ]
        objective = self.objective(**dict.fromkeys(weights, 0))
        found = loss_of(objective, self.batch(objective))
        if "id_loss" in found.logged:
            torch.testing.assert_close(found.total.detach(), found.logged["id_loss"])

    def test_it_logs_the_terms_that_it_declares(self) -> None:
        declared = self.method.declaration.terms
        if declared is None:
            return

        for params in self.variants():
            objective = self.objective(**params)
            values = self.method.declaration.resolve(params)
            there = {
                term.name
                for term in declared
                if not term.weights or any((values[name] or 0) > 0 for name in term.weights)  # type: ignore[operator]
            }
            assert loss_of(objective, self.batch(objective)).logged.keys() == there, params

    def test_a_parameter_that_needs_a_weight_changes_nothing_without_it(self) -> None:
        for parameter in self.method.declaration.parameters:
            without = dict.fromkeys(parameter.only_with, 0)
            losses = set()
            for value in examples(parameter) if without else ():
                objective = self.objective(**without, **{parameter.name: value})
                losses.add(loss_of(objective, self.batch(objective)).total.item())
            assert len(losses) <= 1, f"{parameter.name} without {', '.join(without)}: {losses}"

    def test_steps_along_the_gradient_lower_the_loss(self) -> None:
        objective, model = self.objective(), network()
        data = self.batch(objective)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        losses = []
        for _ in range(20):
            found = loss_of(objective, data, model).total
            optimizer.zero_grad()
            found.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(found.item())
        assert losses[-1] < losses[0]

    def test_a_gpu_would_never_be_waited_for(self) -> None:
        """On the meta device whatever needs a value raises; a copy from the host is noticed."""
        meta = torch.device("meta")
        for params in self.variants():
            objective = self.objective(**params)
            data = self.batch(objective)
            there = Batch(**{name: value.to(meta) for name, value in vars(data).items()})
            model, draws = network(), draws_for(there)
            model.head = nn.Linear(64, NUM_CLASSES)  # type: ignore[assignment]  # ours asks for autocast
            model.to(meta)
            objective.loss(model, there, draws)  # the numbers of an epoch are sent once
            with _Copies() as copies:
                objective.loss(model, there, draws).total.backward()  # type: ignore[no-untyped-call]
            assert not copies.from_host, f"{params}: {copies.from_host} copies from the host a step"


class _Copies(TorchDispatchMode):
    """Counts copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.from_host = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if "copy_" in str(func) and len(args) > 1:
            source = args[-1]
        else:
            source = next(iter(args), None)
        if isinstance(source, Tensor) and isinstance(result, Tensor):
            self.from_host += source.device.type == "cpu" and result.device.type != "cpu"
        return result


class GivenDraws(StepDraws):
    """Draws whose lambda, and whose places of boxes, are given: for formulas worked by hand."""

    def __init__(self, *lam: float, centre: tuple[float, float] = (0.5, 0.5)) -> None:
        self._lam, self._centre = lam, centre
        self.asked: tuple[float, float | None, Per] | None = None
        """What `beta` was last asked for."""

    def beta(
        self, a: float, b: float | None = None, *, per: Per = "sample", name: str = "lam"
    ) -> Tensor:
        """The given numbers."""
        self.asked = (a, b, per)
        return torch.tensor(self._lam)

    def uniforms(self, name: str, width: int = 1, *, per: Per = "sample") -> Tensor:
        """The given centre, for every outlier."""
        return torch.tensor(self._centre).expand(len(self._lam), 2)


def objective_of(name: str, **params: Any) -> Objective:
    """A shipped method's objective; what is not given has its declared default."""
    method = load_method(name)
    return method.objective(method.declaration.resolve(params))


def draws_for(batch: Batch, seed: int = 0, step: int = 0) -> StepDraws:
    """The draws of a step on this batch, the first one's by default."""
    epoch = EpochDraws(
        seed, 1, num_steps=NUM_STEPS, num_slots=len(batch.outliers), device=batch.images.device
    )
    return epoch.at(step)


def losses_of_steps(
    objective: Objective, data: Batch, model: nn.Module | None = None
) -> list[StepLoss]:
    """The losses of all steps but the last, trained on this batch."""
    model = model or network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    found = []
    for step in range(NUM_STEPS - 1):
        torch.manual_seed(step)
        found.append(checked(objective.loss(model, data, draws_for(data, step=step))))
        optimizer.zero_grad()
        found[-1].total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return found


def examples(parameter: Parameter) -> list[Any]:
    """A few values that a parameter may take: all choices, the ends of a range, and something
    within.
    """
    if parameter.kind == "choice":
        return list(parameter.choices)
    if parameter.kind == "bool":
        return [False, True]

    low = 0.0 if parameter.low is None else parameter.low
    if parameter.high is None:
        high = low + 3.0
    else:
        high = parameter.high
    first = low
    if parameter.low_exclusive:
        first = low + 0.05 * (high - low)
    values = [first, (low + high) / 2, high]
    if parameter.kind == "int":
        return [round(value) for value in values]
    return values


def random_batch(size: int = 6, num_outliers: int = 4) -> Batch:
    """Images of one channel and 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randn(size, 1, 8, 8, generator=generator),
        labels=torch.arange(size) % NUM_CLASSES,
        outliers=torch.randn(num_outliers, 1, 8, 8, generator=generator),
        pairs=torch.arange(num_outliers) % size,
    )


def network(num_classes: int = NUM_CLASSES) -> SmallCNN:
    """A small network in training mode, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallCNN(num_classes=num_classes, in_channels=1).train()


def loss_of(objective: Objective, data: Batch, model: nn.Module | None = None) -> StepLoss:
    """The loss of a first step, checked as the training loop does it."""
    return checked(objective.loss(model or network(), data, draws_for(data)))


def scaled(data: Batch, factor: float, shift: float = 0.0) -> Batch:
    """The batch with other pixels."""
    return replace(
        data, images=data.images * factor + shift, outliers=data.outliers * factor + shift
    )


def assert_sound(
    objective: Objective, data: Batch, model: nn.Module | None = None, *, all_weights: bool = True
) -> None:
    """Loss, terms and gradients are finite, in fp32, and of the right shape.

    Args:
        all_weights: every weight must get a gradient.
    """
    model = model or network()
    found = loss_of(objective, data, model)
    for name, value in {"the loss": found.total, **found.logged}.items():
        assert value.shape == (), name
        assert value.isfinite(), name
        assert value.dtype == torch.float32, name
        assert name == "the loss" or not value.requires_grad, f"{name} holds the graph"

    found.total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if all_weights:
            assert parameter.grad is not None, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def cross_entropy_of_images(data: Batch, model: nn.Module | None = None) -> Tensor:
    """What is left of every shipped method without its weights."""
    logits = (model or network())(data.images)
    return F.cross_entropy(logits.float(), data.labels)
