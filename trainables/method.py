"""What a method is: a declaration of its hyperparameters, and the objective they give."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import METHOD, Declaration, Spec, combined, own_params
from trainables.user_modules import import_beside

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lmoe_tune.data.batches import Batch
    from lmoe_tune.data.streams import StepDraws
    from lmoe_tune.methods.objective import Objective

METHODS: dict[str, str] = {
    "logit_mixoe": "trainables.logit_mixoe:LogitMixOE",
    "mixoe": "trainables.mixoe:MixOE",
    "outlier_exposure": "trainables.outlier_exposure:OutlierExposure",
    "energy_oe": "trainables.energy_oe:EnergyOE",
    "baseline": "trainables.baseline:Baseline",
}


class Method:
    """Subclass this for your own method, and name it in a spec as `trainable:
    package.module:Class`.

    It needs a `declaration` of its parameters and a `loss`; docs/own-method.md has an example. A
    method with its own class of objective overrides `objective` instead.
    """

    declaration: ClassVar[Declaration]

    def loss(
        self, model: nn.Module, batch: Batch, draws: StepDraws, params: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one step, a scalar, and its terms by name: `{"id_loss": ...}` is logged as
        `train_id_loss`.

        Args:
            model: maps images (N, C, H, W) to logits (N, K); it is in training mode.
            batch: images (B, C, H, W), labels (B,), and outliers (M, C, H, W), where `pairs[j]` is
                the image that goes with outlier j. M is `outlier_ratio` times a full batch,
                rounded, at least 2, and the same in every step; 0 where the declaration says
                `needs_outliers=False`.
            draws: the source of all randomness: `draws.beta(a, b)` and `draws.uniforms(name)` give
                a number for each outlier, `draws.generator(name)` a NumPy generator. All trials of
                a seed get the same, and so does one that continues after a kill.
            params: a value for every declared parameter.
        """
        raise NotImplementedError

    def objective(self, params: Mapping[str, Any]) -> Objective:
        """The training objective for one set of parameters; every declared one is in `params`."""
        from lmoe_tune.methods.objective import LossFunction

        if self.declaration.needs_outliers:
            ratio = params.get("outlier_ratio", 1.0)
        else:
            ratio = 0.0
        return LossFunction(self.loss, dict(params), ratio)

    def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `params` that the declaration names itself, without the shared ones."""
        return {parameter.name: params[parameter.name] for parameter in self.declaration.parameters}


def load_method(name: str, folder: Path | None = None) -> Method:
    """The method of a name in `METHODS`, or of `package.module:Class` with `folder` on the import
    path.

    Raises:
        UsageError: there is no such module or class, or it is not a `Method`.
    """
    module_name, _, class_name = METHODS.get(name, name).partition(":")
    try:
        if folder is None:
            module = importlib.import_module(module_name)
        else:
            module = import_beside(folder, module_name)
    except (
        Exception,
        SystemExit,
    ) as error:  # a module of the user's may raise anything while it is imported
        raise UsageError(
            f"cannot import '{module_name}' ({type(error).__name__}: {error}); modules are looked for "
            f"beside the spec, in {folder}, and among the installed packages"
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        where = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
        raise UsageError(
            f"'{module_name}'{where} has no class '{class_name}' that is a trainables.Method"
        )
    if not isinstance(getattr(found, "declaration", None), Declaration):
        raise UsageError(
            f"'{module_name}': {class_name} has no `declaration` that is a lmoe_tune.spec.Declaration"
        )
    if METHOD in [parameter.name for parameter in found.declaration.parameters]:
        raise UsageError(
            f"'{module_name}': {class_name} declares a parameter '{METHOD}', which is what chooses among methods; "
            "rename it"
        )
    if found.loss is Method.loss and found.objective is Method.objective:
        raise UsageError(
            f"'{module_name}': {class_name} is unfinished, it must define the method `loss`"
        )
    try:
        method = found()
    except Exception as error:
        raise UsageError(
            f"'{module_name}': {class_name}() raises {type(error).__name__}: {error}; a method is made without "
            "arguments, its parameters come with each loss"
        ) from error
    if found.objective is Method.objective and not _takes_a_step(method.loss):
        raise UsageError(
            f"'{module_name}': {class_name}.loss cannot be called with (model, batch, draws, params), as it will be"
        )
    return method


def _takes_a_step(loss: Callable[..., Any]) -> bool:
    """Whether it can be called with what a step has; one that Python knows no signature of may be."""
    try:
        inspect.signature(loss).bind("model", "batch", "draws", "params")
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def configured(
    spec: Spec, params: Mapping[str, Any], folder: Path
) -> tuple[Method, dict[str, Any]]:
    """The method of a trial, and every one of its hyperparameters: the trial's, the fixed ones, the
    defaults.

    Raises:
        UsageError: the method cannot be loaded, or has no such parameters.
    """
    given = {**spec.fixed, **params}
    if METHOD not in spec.space:
        method = load_method(spec.trainable, folder)
        return method, method.declaration.resolve(given)
    name = str(given.pop(METHOD, spec.trainable))
    method = load_method(name, folder)
    return method, method.declaration.resolve(own_params(given, name, method.declaration))


def declaration_of(spec: Spec, folder: Path) -> Declaration:
    """What a spec's trainable exposes, or all those together that it searches among."""
    if METHOD not in spec.space:
        return load_method(spec.trainable, folder).declaration
    names = [str(name) for name in spec.space[METHOD].choices or ()]
    return combined([replace(load_method(name, folder).declaration, name=name) for name in names])


def resolve_declaration(name: str, folder: Path) -> Declaration:
    """The declaration of a user's own `package.module:Class`; imports that module and nothing else."""
    return load_method(name, folder).declaration


def declarations() -> dict[str, Declaration]:
    """The declarations of all shipped methods, by name."""
    return {name: load_method(name).declaration for name in METHODS}
