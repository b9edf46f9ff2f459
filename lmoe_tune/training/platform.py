"""Where and how precisely to compute: decided once, at the start of a sweep, and then frozen in its
spec.

One thread and two, or fp32 and bf16, give different bits, so a resumed sweep must not decide again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmoe_tune.spec import METHOD, Spec
from lmoe_tune.spec.outliers import numbers_of_outliers
from lmoe_tune.wording import readable_size


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it, whatever this process may use of it."""

    name: str
    capability: float
    """CUDA's compute capability."""
    memory: int | None
    """Bytes; None if it has none of its own."""

    def __str__(self) -> str:
        if self.memory is None:
            return self.name
        return f"{self.name} ({readable_size(self.memory)})"


def resolve_platform(spec: Spec, *, cuda: bool | None = None) -> Spec:
    """Replace every `auto` (device, precision, compile) and default (threads, seed) by the value
    that will be used.

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
            # assumed if none can be queried, as on a cluster's head
            has_bf16 = all(gpu.capability >= BF16_CAPABILITY for gpu in gpus_here())
        else:
            has_bf16 = _cpu_has_bf16()
        precision = "bf16" if has_bf16 else "fp32"
    compile = train.compile
    if compile == "auto":
        compile = device == "cuda" and _pays_to_compile(spec)
    threads = train.threads or max(1, int(spec.resources.cpu))
    seed = spec.search.seed if train.seed is None else train.seed
    frozen = train.model_copy(
        update={
            "device": device,
            "precision": precision,
            "compile": compile,
            "threads": threads,
            "seed": seed,
        }
    )
    return spec.model_copy(update={"train": frozen})


BF16_CAPABILITY = 8.0
"""The lowest CUDA compute capability at which GPUs multiply bf16; those below it emulate it."""


LEAST_COMPILED = 224
"""Image side in pixels from which a GPU is busy with memory traffic, which compiling saves."""
MOST_COMPILED = 6
"""Numbers of rows to compile, each separately; torch gives up at eight, with the baseline's."""


def _pays_to_compile(spec: Spec) -> bool:
    """Whether a GPU's steps win back the minute that compiling takes: decision 0018.

    A driver that sees no GPU cannot know whether the nodes have a compiler, and says no.
    """
    has_few = numbers_of_rows(spec) <= MOST_COMPILED
    can_compile = lacking_compiler("cuda") is None and bool(gpus_here())
    return is_large(spec) and has_few and can_compile


def lacking_compiler(device: str) -> str | None:
    """What torch.compile lacks on this machine to build code for a device, in words."""
    if device == "cuda":
        variable, names, language = "CC", ("gcc", "clang"), "C"
    else:
        variable, names, language = "CXX", ("g++", "clang++"), "C++"
    if not os.environ.get(variable) and not any(shutil.which(name) for name in names):
        return f"there is no {language} compiler here ({' or '.join(names)})"

    if device == "cuda" and not os.path.exists(f"{sysconfig.get_path('include')}/Python.h"):
        return "Python's headers are not here (Python.h; Debian's package python3-dev)"

    return None


def is_large(spec: Spec) -> bool:
    """Whether compiled steps would be noticeably faster."""
    return spec.data.image_crop >= LEAST_COMPILED and spec.model.arch != "small_cnn"


def numbers_of_rows(spec: Spec) -> int:
    """How many different numbers of images a search's steps have: each is compiled separately."""
    num_methods = 1
    if METHOD in spec.space:
        num_methods = len(spec.space[METHOD].choices or ())
    numbers = numbers_of_outliers(spec)
    return num_methods * (numbers.count if numbers is not None else 1)


def gpu_bytes() -> int | None:
    """The memory of this machine's smallest GPU; None if none can be queried."""
    return smallest_memory(gpus_here())


def smallest_memory(gpus: Iterable[Gpu]) -> int | None:
    """Bytes of the GPU with the least memory; None if it is not known for any."""
    return min((gpu.memory for gpu in gpus if gpu.memory is not None), default=None)


def gpus_here() -> list[Gpu]:
    """The GPUs of this machine; empty if there is none or it cannot tell."""
    what = "name,compute_cap,memory.total"
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, encoding="utf-8", check=True
        )
        found = []
        for line in done.stdout.splitlines():
            name, capability, mebibytes = (word.strip() for word in line.rsplit(",", 2))
            if mebibytes.startswith("["):  # [N/A] of a GPU that shares the processor's memory
                memory = None
            else:
                memory = int(float(mebibytes) * 2**20)
            found.append(Gpu(name, float(capability), memory))
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return found


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
