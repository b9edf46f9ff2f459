"""The names of the networks a spec may use; `lmoe_tune.model` builds them."""

from __future__ import annotations

import re

ARCHITECTURES = ("small_cnn", "resnet18", "resnet34", "resnet50", "convnext_tiny", "vit_b_16")

IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "convnext_tiny": "convnext_tiny-983f1562.pth",
    "vit_b_16": "vit_b_16-c867db91.pth",
}
"""What torchvision calls its first published weights of each."""

TIMM = "timm/"
"""Before the name of a model of timm, an optional extra."""

_TIMM_NAME = re.compile(rf"{TIMM}[a-z0-9_.]{{1,100}}")


def is_architecture(name: str) -> bool:
    """Whether a spec may name this; whether timm knows its model is seen when it is built."""
    return name in ARCHITECTURES or _TIMM_NAME.fullmatch(name) is not None
