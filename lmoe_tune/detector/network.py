"""The network as it is deployed: raw pixels in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A classifier with its normalisation: pixels (N, C, H, W) in 0-255, floats or uint8, to logits (N, K).

    The normalisation and the memory format are those of the evaluation during training, so on one machine the
    logits are the same, bit for bit.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.eval().to(memory_format=torch.channels_last)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        images = (pixels.float() - self.mean) / self.std
        logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return logits
