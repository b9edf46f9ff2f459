"""A network that torch.compile has compiled, once for all batches of a sweep."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn


def compiled(model: nn.Module) -> nn.Module:
    """The same network, whose first step takes about a minute on a GPU, or seconds where the compiled
    code is in the cache of torch's compiler.

    The number of rows may change from step to step: `outlier_ratio` is searched, and the last batch
    of an epoch is short. Compiled for one number only, each other one would take its own minute.
    """
    network = cast(nn.Module, torch.compile(model))
    network.register_forward_pre_hook(_any_number_of_rows)
    return network


def _any_number_of_rows(network: nn.Module, inputs: tuple[Any, ...]) -> None:
    import torch._dynamo  # with torch's compiler, which is imported only where it is used

    torch._dynamo.maybe_mark_dynamic(inputs[0], 0)
