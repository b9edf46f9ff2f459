"""Each of these tests runs its code in a process of its own: what torch finds out about devices, it finds out once."""

from __future__ import annotations

import multiprocessing
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.gpu import alone as process


@pytest.fixture(scope="session")
def alone() -> Callable[..., Any]:
    """Run code in a process of its own; it leaves what it found in `found`.

    The processes are forked from one that has imported torch and is on no device yet.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(process.IMPORTED))

    def run(code: str, **given: Any) -> Any:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(process.run, textwrap.dedent(code), given).result(timeout=600)

    return run
