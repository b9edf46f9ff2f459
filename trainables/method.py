"""What a method is: a declaration of its hyperparameters, and the objective they give."""

from __future__ import annotations

import importlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Declaration

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective

METHODS: dict[str, str] = {
    "logit_mixoe": "trainables.logit_mixoe:LogitMixOE",
    "baseline": "trainables.baseline:Baseline",
}


class Method(ABC):
    """Subclass this for a method of your own, and name it in a spec as `trainable: package.module:Class`."""

    declaration: ClassVar[Declaration]

    @abstractmethod
    def objective(self, params: Mapping[str, Any]) -> Objective:
        """The training objective for one set of parameters; every declared one is in `params`."""


def load_method(name: str, folder: Path | None = None) -> Method:
    """The method of a name in `METHODS`, or of `package.module:Class` with `folder` on the import path.

    Raises:
        UsageError: no such module or class, or it is no `Method`.
    """
    module_name, _, class_name = METHODS.get(name, name).partition(":")
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end: a folder named like an installed package must not hide it
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything while it is imported
        raise UsageError(
            f"cannot import '{module_name}' ({type(error).__name__}: {error}); modules are looked for "
            f"beside the spec, in {folder}, and among the installed packages"
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UsageError(f"'{module_name}' has no class '{class_name}' that is a trainables.Method")
    if not isinstance(getattr(found, "declaration", None), Declaration):
        raise UsageError(f"'{module_name}': {class_name} has no `declaration` that is a lmoe_tune.spec.Declaration")
    if inspect.isabstract(found):
        raise UsageError(f"'{module_name}': {class_name} is unfinished, it must define the method `objective`")
    return found()


def resolve_declaration(name: str, folder: Path) -> Declaration:
    """The declaration of a user's own `package.module:Class`; imports that module and nothing else."""
    return load_method(name, folder).declaration


def declarations() -> dict[str, Declaration]:
    """The declarations of all shipped methods, by name."""
    return {name: load_method(name).declaration for name in METHODS}
