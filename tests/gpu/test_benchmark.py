"""`benchmarks/gpu.py` runs whole without a GPU: the hour on one is not spent on its faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Alone = Callable[..., Any]
ROOT = Path(__file__).parents[2]
SECTIONS = ("correctness", "ceilings", "step", "input", "epoch", "memory", "waits", "packing")


def dry_run(*arguments: str, timeout: int = 500) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--device", "cpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_dry_run_goes_through_every_section_but_compile(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    done = dry_run("--seconds", "2000", "--only", ",".join(SECTIONS), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"== (\w+)", done.stdout) == list(SECTIONS)
    for said in ("the same bits", "of copying", "stall", "checkpoint", "2 at once:"):
        assert said in done.stdout
    assert "failed: none" in done.stdout
    assert out.read_text(encoding="utf-8") == done.stdout


@pytest.mark.slow
def test_a_section_that_fails_or_takes_too_long_does_not_end_the_others(tmp_path: Path) -> None:
    done = dry_run("--only", "memory,ceilings", "--seconds", "600", "--arch", "no_such_network")
    assert done.returncode == 1
    assert "no_such_network" in done.stdout and "Traceback" in done.stdout
    assert "copy" in done.stdout
    assert "1 sections ended; failed: memory" in done.stdout

    done = dry_run("--only", "ceilings,memory", "--seconds", "0.02")
    assert done.returncode == 1
    assert "OutOfTimeError" in done.stdout
    assert "failed: ceilings, memory" in done.stdout


@pytest.mark.slow
def test_what_is_not_installed_is_said_with_how_to_bring_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import gpu;"
        "gpu.find_spec = lambda name: None; print(gpu.prepared(None, None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.stdout.startswith("pydantic and yaml cannot be imported")
    assert f"--python-version {version}" in done.stdout
    assert "--wheels wheels" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_computes_on_the_device_runs_on_a_pretended_gpu(alone: Alone, tmp_path: Path) -> None:
    found = alone(
        """
        import contextlib, io, sys
        sys.path.insert(0, "benchmarks")
        import gpu
        said = io.StringIO()
        small = ["--arch", "small_cnn", "--batch", "4", "--crop", "32", "--images", "48"]
        only = ["--only", "correctness,epoch,memory", "--seconds", "2000"]
        with PretendedGpu() as device, contextlib.redirect_stdout(said):
            status = gpu.main(["--device", "cuda", "--folder", folder, *small, *only])
        found = [status, said.getvalue(), device.faults]
        """,
        folder=str(tmp_path),
    )
    assert found[0] == 0, found[1]
    assert "failed: none" in found[1]
    assert found[2] == []
