"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.errors import TrainingError
from lmoe_tune.spec.declaration import fault_of_term

NO_GRADIENT = "the loss has no gradient: it does not depend on the model's output"


@dataclass(frozen=True)
class StepLoss:
    """`total` is what is differentiated; `logged` are detached scalars by metric name, `train_`
    left off.

    Every step has the same terms. A name has letters, digits, `_`, `-` and `.`; `loss` is the
    total's.
    """

    total: Tensor
    logged: dict[str, Tensor]


class Objective(ABC):
    """A training objective.

    Attributes:
        outlier_ratio: outliers drawn per in-distribution image; 0 where the method needs none.
    """

    outlier_ratio: float

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        """The loss of one step; all randomness comes from `draws`, or from torch's generators,
        seeded for each step.
        """


LossOfStep = Callable[
    [nn.Module, Batch, StepDraws, Mapping[str, Any]], tuple[Tensor, Mapping[str, Tensor]]
]


@dataclass(frozen=True)
class LossFunction(Objective):
    """An objective made of a function that gives the loss and its terms by name."""

    function: LossOfStep
    params: Mapping[str, Any]
    outlier_ratio: float

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        given = self.function(model, batch, draws, self.params)
        if not isinstance(given, tuple) or len(given) != 2:
            raise TrainingError(
                f"the method's loss gave {_kind(given)}, but must give two things: the loss, and its terms by name"
            )
        total, terms = given
        if not isinstance(terms, Mapping):
            raise TrainingError(
                f"the terms of the method's loss are {_kind(terms)}, but must be a dict: name: value"
            )
        _refuse_malformed({"the loss": total, **terms})
        return StepLoss(total, {name: value.detach().float() for name, value in terms.items()})


Terms = dict[str, tuple[float, Tensor]]
"""Terms of a loss by name: each a weight, and the term itself, a scalar."""


def weighted_sum(id_loss: Tensor, terms: Terms) -> StepLoss:
    """The in-distribution loss plus each term times its weight; all are logged."""
    total, logged = id_loss, {"id_loss": id_loss.detach()}
    for name, (weight, term) in terms.items():
        total, logged[name] = total + weight * term, term.detach()
    return StepLoss(total, logged)


def checked(loss: StepLoss) -> StepLoss:
    """The loss of a step, unchanged; raises TrainingError if it cannot be trained on."""
    if not isinstance(loss, StepLoss):
        raise TrainingError(f"the objective gave {_kind(loss)}, but must give a StepLoss")
    _refuse_names(tuple(loss.logged))
    _refuse_malformed({"the loss": loss.total, **loss.logged})
    if not loss.total.requires_grad:
        raise TrainingError(NO_GRADIENT)
    return loss


@lru_cache(maxsize=64)
def _refuse_names(names: tuple[object, ...]) -> None:
    for name in names:
        fault = fault_of_term(name)
        if fault:
            raise TrainingError(fault)


def _refuse_malformed(terms: Mapping[str, object]) -> None:
    for name, value in terms.items():
        if not isinstance(value, Tensor) or value.dim() != 0:
            raise TrainingError(
                f"{name} is {_kind(value)}, but must be a tensor with one number in it"
            )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None"

    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"

    return f"a value of type {type(value).__name__}"


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """CE(logits, u) with u = 1/K for every class, the mean over the rows of (M, K) (Hendrycks et
    al., 2019).
    """
    return -logits.log_softmax(dim=1).mean()
