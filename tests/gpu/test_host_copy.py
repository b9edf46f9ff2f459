"""A checkpoint's tensors come to the host in one transfer for each type of number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Alone = Callable[..., Any]


def test_tensors_of_any_layout_arrive_as_they_are_and_all_at_once(alone: Alone) -> None:
    found = alone(
        """
        from lmoe_tune.training.host_copy import on_host
        torch.manual_seed(0)
        here = {
            "plain": torch.randn(3, 4),
            "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "single": torch.tensor(7),
            "none": torch.zeros(0),
            "turned": torch.randn(4, 3).T,
        }
        with PretendedGpu() as gpu:
            there = {name: value.to("cuda") for name, value in here.items()}
            gpu.waits.clear()
            back = on_host(there)
            waits = len(gpu.waits)
        found = {
            "same": all(torch.equal(back[name], value) for name, value in here.items()),
            "strides": all(back[name].stride() == value.stride() for name, value in here.items()),
            "order": list(back) == list(here),
            "waits": waits,
        }
        """
    )
    assert found == {"same": True, "strides": True, "order": True, "waits": 2}
