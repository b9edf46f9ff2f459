"""What torch's compiler needs on this machine, and what is said if it fails."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager

from lmoe_tune.errors import TrainingError
from lmoe_tune.wording import shortened

COMPILERS = ("torch._dynamo", "torch._inductor")


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


@contextmanager
def explained_compiler() -> Iterator[None]:
    """If torch's compiler fails in the block, the error says what to set.

    Raises:
        TrainingError: instead of the compiler's own error.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise

        first = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"torch.compile failed: {type(error).__name__}: {shortened(first)}; set train.compile: false"
        ) from error
