"""The published protocol as one writes it with PyTorch: images decoded in every epoch, three forwards in fp32.

It imports nothing of lmoe_tune. Transforms and settings: MixOE's (resize 512, crop 448, flip, colour jitter of
brightness 32/255 and saturation 0.5, ImageNet's normalisation; SGD with Nesterov momentum 0.9, weight decay 1e-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photographs(Dataset[Tensor]):
    """Images of files, transformed whenever they are asked for."""

    def __init__(self, paths: Sequence[Path], transform: transforms.Compose) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with open(self.paths[index], "rb") as file:
            image = Image.open(file).convert("RGB")
        transformed: Tensor = self.transform(image)
        return transformed


def loading(resize: int, crop: int) -> transforms.Compose:
    """From a file to a cropped uint8 image."""
    return transforms.Compose(
        [
            transforms.Resize((resize, resize)),
            transforms.RandomCrop((crop, crop)),
            transforms.PILToTensor(),
        ]
    )


def loading_and_augmenting(resize: int, crop: int) -> transforms.Compose:
    """All of it."""
    return transforms.Compose(
        [
            transforms.Resize((resize, resize)),
            transforms.RandomCrop((crop, crop)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=32 / 255, saturation=0.5),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def loss_of_three_forwards(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    outliers: Tensor,
    lam: float,
    *,
    mix: float,
    consistency: float,
) -> Tensor:
    """Logit MixOE with a forward for each kind of input; as many outliers as images."""
    logits = model(images)
    logits_out = model(outliers)
    logits_in = model(lam * images + (1 - lam) * outliers)
    num_classes = logits.shape[1]
    logits_mix = lam * logits + (1 - lam) * logits_out
    target = lam * F.one_hot(labels, num_classes).float() + (1 - lam) / num_classes
    loss = F.cross_entropy(logits, labels)
    loss = loss + mix * F.cross_entropy(logits_mix, target)
    return loss + consistency * F.mse_loss(logits_in, logits_mix)


def optimizer_of(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-5)
