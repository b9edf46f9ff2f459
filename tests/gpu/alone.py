"""What a process of the fixture `alone` does; its modules are imported before it is forked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from tests.gpu import trials
from tests.gpu.pretended import PretendedGpu

IMPORTED = ("pytest", "torch.fx.experimental.symbolic_shapes", "tests.gpu.alone", trials.__name__)


def run(code: str, given: Mapping[str, Any]) -> Any:
    """Run code with these variables; returns what it left in `found`."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    scope: dict[str, Any] = {"torch": torch, "PretendedGpu": PretendedGpu, **given}
    exec(code, scope)
    return scope["found"]
