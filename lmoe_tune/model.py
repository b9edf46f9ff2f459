"""The classifiers, built by name.

N images, C channels, K classes. Every model ends in a `Head`, which computes in fp32 under
autocast: bf16 logits would round away the small differences that the consistency term is about.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmoe_tune import advice
from lmoe_tune.errors import UsageError
from lmoe_tune.spec.architectures import ARCHITECTURES, TIMM


class Head(nn.Linear):
    """A linear layer that stays in fp32 under autocast."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight, self.bias)


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions (32, 64, 64 channels) for images of 8 x 8 and up; input (N, C, H,
    W).
    """

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


def build_model(
    arch: str, num_classes: int, in_channels: int, image_size: int | None = None
) -> nn.Module:
    """A freshly initialised model (the global generator decides the weights) that maps (N, C, H, W)
    to (N, K).

    Args:
        arch: small_cnn, one of torchvision's in `ARCHITECTURES`, or timm/NAME.
        image_size: H = W; only transformers are built for one size, 224 if none is given. A spec is
            checked for sizes and channels that they cannot take.

    Raises:
        UsageError: there is no such architecture.
    """
    if arch == "small_cnn":
        return SmallCNN(num_classes, in_channels)
    if arch not in ARCHITECTURES and not arch.startswith(TIMM):
        raise UsageError(
            f"model.arch is '{arch}', but must be one of {', '.join(ARCHITECTURES)}, or {TIMM}NAME"
        )
    assert in_channels == 3, f"{arch} takes three channels: the spec is checked for it"
    if arch.startswith(TIMM):
        return _build_timm(arch, num_classes, image_size)
    import torchvision  # costs 2 s: only where one of its models is used

    sized = {}
    if arch == "vit_b_16":
        sized["image_size"] = image_size or 224
    model: Any = getattr(torchvision.models, arch)(weights=None, **sized)
    if arch.startswith("resnet"):
        model.fc = Head(model.fc.in_features, num_classes)
    elif arch == "vit_b_16":
        model.heads.head = Head(model.heads.head.in_features, num_classes)
    else:
        model.classifier[-1] = Head(model.classifier[-1].in_features, num_classes)
    assert isinstance(model, nn.Module)
    return model


def _build_timm(arch: str, num_classes: int, image_size: int | None) -> nn.Module:
    model = create_timm(arch, num_classes, image_size, pretrained=False)
    last = model.get_submodule(_timm_head(model, arch))
    if type(last) is not nn.Linear:
        raise UsageError(
            f"model.arch: {arch} ends in {type(last).__name__}, but must end in a linear layer"
        )
    model.set_submodule(_timm_head(model, arch), Head(last.in_features, num_classes))
    return model


def create_timm(
    arch: str, num_classes: int, image_size: int | None, *, pretrained: bool
) -> nn.Module:
    """A timm model with its own head; one that is built for one image size is built for this one.

    Raises:
        UsageError: timm is not installed, or has no such model.
    """
    try:
        import timm
    except ImportError:
        raise UsageError(
            f"model.arch is '{arch}', but timm is not installed: {advice.setup('timm')}"
        ) from None
    name = arch.removeprefix(TIMM)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        if close:
            hint = f"; did you mean {' or '.join(TIMM + found for found in close)}?"
        else:
            hint = ""
        raise UsageError(f"model.arch: timm {timm.__version__} has no model '{name}'{hint}")
    if image_size is None:
        sized = {}
    else:
        sized = {"img_size": image_size}
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **sized)
    except TypeError:  # a convolutional network takes images of any size but no such argument
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes)
    assert isinstance(model, nn.Module)
    return model


def _timm_head(model: Any, arch: str) -> str:
    name = model.pretrained_cfg.get("classifier")
    if not isinstance(name, str):
        raise UsageError(
            f"model.arch: {arch} has {name} as its head, but must end in one linear layer"
        )
    return name
