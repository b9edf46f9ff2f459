"""Where and how precisely to compute: decided once, at the start of a sweep, and then frozen in its spec.

One thread and two, or fp32 and bf16, give different bits, so a resumed sweep must not decide anew.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

from lmoe_tune.spec import Spec


def resolve_platform(spec: Spec, *, cuda: bool | None = None) -> Spec:
    """Replace every `auto` (device, precision) and default (threads, seed) by what will be used.

    Args:
        cuda: whether to use a GPU; None takes one when the trials are given a share of one.
    """
    train = spec.train
    device = train.device
    if device == "auto":
        if spec.resources.gpu > 0 if cuda is None else cuda:
            device = "cuda"
        else:
            device = "cpu"
    precision: Literal["auto", "fp32", "bf16"] = train.precision
    if precision == "auto":
        if device == "cuda":
            has_bf16 = _gpus_have_bf16()
        else:
            has_bf16 = _cpu_has_bf16()
        precision = "bf16" if has_bf16 else "fp32"
    threads = train.threads or max(1, int(spec.resources.cpu))
    seed = spec.search.seed if train.seed is None else train.seed
    frozen = train.model_copy(
        update={"device": device, "precision": precision, "threads": threads, "seed": seed}
    )
    return spec.model_copy(update={"train": frozen})


BF16_CAPABILITY = 8.0
"""The CUDA compute capability from which on GPUs multiply bf16; those before emulate it."""


def _gpus_have_bf16() -> bool:
    """Whether all GPUs of this machine do; taken for granted where none can be asked, as on a cluster's head."""
    return all(capability >= BF16_CAPABILITY for capability in _told_by_gpus("compute_cap"))


def gpu_bytes() -> int | None:
    """The memory of this machine's smallest GPU; None where none can be asked."""
    mebibytes = min(_told_by_gpus("memory.total"), default=None)
    if mebibytes is None:
        return None

    return int(mebibytes * 2**20)


def _told_by_gpus(what: str) -> list[float]:
    """A number of each GPU of this machine; none where there is no GPU or it cannot say."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, encoding="utf-8", check=True
        )
        return [float(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; emulated bf16 is slower than fp32."""
    try:
        flags = (
            Path("/proc/cpuinfo")
            .read_text(encoding="utf-8")
            .split("flags", 1)[1]
            .split("\n", 1)[0]
            .split()
        )
    except (OSError, IndexError):
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
