"""What BatchNorm sees when in-distribution images, outliers and mixtures go through one network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNormMode = Literal["joint", "separate", "frozen"]


def forward_groups(model: nn.Module, groups: Sequence[Tensor], mode: BatchNormMode) -> list[Tensor]:
    """Logits (Ng, K), in fp32, of every group of images (Ng, C, H, W); the first group is the
    in-distribution one.

    joint: one forward over all rows, so all groups are normalised alike and the running statistics
        are those of the mixture of groups.
    separate: a forward per group, as MixOE does; only the in-distribution rows move the running
        statistics. With all groups they end up mostly outlier and mixture, and accuracy falls.
    frozen: the running statistics normalise and stay as they are; needs a much smaller learning
        rate.
    """
    if mode == "separate":
        first = model(groups[0]).float()
        with _batch_norms_set(model, track_running_stats=False):
            return [first, *(model(group).float() for group in groups[1:])]
    with _batch_norms_set(model, training=mode == "joint"):
        logits: Tensor = model(torch.cat(list(groups)) if len(groups) > 1 else groups[0]).float()
    return list(torch.split(logits, [len(group) for group in groups]))


@contextmanager
def _batch_norms_set(model: nn.Module, **attributes: bool) -> Iterator[None]:
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    before = [{name: getattr(layer, name) for name in attributes} for layer in layers]
    for layer in layers:
        layer.__dict__.update(attributes)
    try:
        yield
    finally:
        for layer, values in zip(layers, before, strict=True):
            layer.__dict__.update(values)
