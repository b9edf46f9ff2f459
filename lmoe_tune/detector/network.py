"""The network as it is deployed: raw pixels in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.model import Head


class Network(nn.Module):
    """A classifier with its normalisation: pixels (N, C, H, W) in 0-255, floats or uint8, to logits
    (N, K).

    The normalisation and the memory format are those of the evaluation during training. It computes
    in fp32, and its `Head`s become plain linear layers: nothing is left of what mixed precision
    needs.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        for name, module in list(model.named_modules()):
            if isinstance(module, Head):
                model.set_submodule(name, _plain(module))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", _per_channel(preprocessing.mean))
        self.register_buffer("std", _per_channel(preprocessing.std))
        self.eval().to(memory_format=torch.channels_last)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        images = (pixels.float() - self.mean) / self.std
        logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _plain(head: Head) -> nn.Linear:
    plain = nn.Linear(head.in_features, head.out_features)
    plain.weight, plain.bias = head.weight, head.bias
    return plain
