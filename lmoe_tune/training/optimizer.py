"""SGD with Nesterov momentum, over torch's own kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from lmoe_tune.training.host_copy import on_host


class NesterovSGD:
    """The steps of `torch.optim.SGD(nesterov=True, fused=True)`, bit for bit.

    Constructing that class imports torch's compiler, which takes a second in every worker process;
    its functional form does not. The learning rate is an argument of the step, as a schedule
    decides it anyway.
    """

    def __init__(self, params: Iterable[Tensor], *, momentum: float, weight_decay: float) -> None:
        self._params = [param for param in params if param.requires_grad]
        self._buffers = [
            torch.zeros_like(param, memory_format=torch.preserve_format) for param in self._params
        ]
        self._momentum = momentum
        self._weight_decay = weight_decay

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for param in self._params:
            param.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step along the gradients; a parameter that got none stays as it is."""
        pairs = [
            (param, buffer)
            for param, buffer in zip(self._params, self._buffers, strict=True)
            if param.grad is not None
        ]
        sgd(
            [param for param, _ in pairs],
            [param.grad for param, _ in pairs if param.grad is not None],
            [buffer for _, buffer in pairs],
            has_sparse_grad=False,
            fused=True,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=lr,
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The momentum of every parameter, in the model's order, in the host's memory."""
        named = {str(place): buffer for place, buffer in enumerate(self._buffers)}
        return {"momentum": list(on_host(named).values())}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for buffer, saved in zip(self._buffers, state["momentum"], strict=True):
            buffer.copy_(saved)
