"""Each of these tests runs its code in a process of its own: what torch finds out about devices, it finds out once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def alone() -> Callable[..., Any]:
    """Run code in a process of its own; it leaves what it found in `found`, which must be fit for JSON."""

    def run(code: str, **given: Any) -> Any:
        whole = "\n".join(
            [
                "import json, torch",
                "torch.set_num_threads(1)",
                "from tests.gpu.pretended import PretendedGpu",
                *(f"{name} = {value!r}" for name, value in given.items()),
                textwrap.dedent(code),
                "print(json.dumps(found))",
            ]
        )
        done = subprocess.run(
            [sys.executable, "-c", whole],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
