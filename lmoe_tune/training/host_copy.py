"""Copies a device's tensors to the host in few transfers: hundreds of small ones wait for the GPU
one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the host's memory, by name, in the order of the names: one transfer for
    each dtype.

    Tensors that are there already are returned as they are, not copied.
    """
    elsewhere: dict[torch.dtype, list[str]] = defaultdict(list)
    for name, value in tensors.items():
        if value.device.type != "cpu" and _has_no_gaps(value):
            elsewhere[value.dtype].append(name)

    found = {name: value.detach() for name, value in tensors.items()}
    for names in elsewhere.values():
        flat = torch.cat([_in_memory_order(tensors[name]) for name in names]).cpu()
        parts = torch.split(flat, [tensors[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            like = tensors[name]
            found[name] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
            _in_memory_order(found[name]).copy_(part)
    return {name: value.cpu() for name, value in found.items()}


def _has_no_gaps(tensor: Tensor) -> bool:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps) == tensor.numel()


def _in_memory_order(tensor: Tensor) -> Tensor:
    """A flat view of a tensor without gaps, whatever the order of its dimensions (channels last,
    for one).
    """
    return tensor.detach().as_strided((tensor.numel(),), (1,))
