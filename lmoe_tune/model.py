"""The classifiers, built by name.

N images, C channels, K classes. Every model ends in a `Head`, which computes in fp32 under autocast: bf16
logits would round away the small differences that the consistency term is about.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmoe_tune.errors import UsageError


class Head(nn.Linear):
    """A linear layer that stays in fp32 under autocast."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight, self.bias)


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions (32, 64, 64 channels) for images of 8 x 8 and up; input (N, C, H, W)."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(in_channels, 32),
            *_convolution(32, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 64),
        )
        self.head = Head(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


ARCHITECTURES = ("small_cnn", "resnet18", "resnet34", "resnet50", "convnext_tiny", "vit_b_16")


def build_model(arch: str, num_classes: int, in_channels: int) -> nn.Module:
    """A freshly initialised model (the global generator decides the weights) that maps (N, C, H, W) to (N, K).

    Raises:
        UsageError: no such architecture, or it cannot take that many channels.
    """
    if arch == "small_cnn":
        return SmallCNN(num_classes, in_channels)
    if arch not in ARCHITECTURES:
        raise UsageError(f"model.arch is '{arch}', but must be one of {', '.join(ARCHITECTURES)}")
    if in_channels != 3:
        raise UsageError(f"model.arch: {arch} takes images of 3 channels, but these have {in_channels}; use small_cnn")
    import torchvision  # costs 2 s: only where one of its models is used

    model: Any = getattr(torchvision.models, arch)(weights=None)
    if arch.startswith("resnet"):
        model.fc = Head(model.fc.in_features, num_classes)
    elif arch == "vit_b_16":
        model.heads.head = Head(model.heads.head.in_features, num_classes)
    else:
        model.classifier[-1] = Head(model.classifier[-1].in_features, num_classes)
    assert isinstance(model, nn.Module)
    return model
