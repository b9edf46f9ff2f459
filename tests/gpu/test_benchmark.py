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

    done = dry_run("--only", "ceilings,step", "--seconds", "0.02")
    assert done.returncode == 1
    assert done.stdout.count("FAILED: OutOfTimeError") == 2
    assert "0 sections ended; failed: ceilings, step" in done.stdout


def test_a_section_that_ends_its_process_or_cannot_be_stopped_does_not_end_the_others(
    tmp_path: Path,
) -> None:
    code = """
import os, sys, time
sys.path.insert(0, 'benchmarks')
import gpu

def work_apart(options, folder, names, ends, told):
    for name in names:
        told.send(("begins", (name, 0.1)))
        told.send(("says", f"in {name}"))
        if name == "step":
            os.abort()
        if name == "input":
            time.sleep(600)
        told.send(("failed" if name == "epoch" else "ended", name))

gpu.work_apart, gpu.GRACE_S = work_apart, 0.5
sys.exit(gpu.main(["--only", "ceilings,step,input,epoch,memory", "--out", sys.argv[1]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.txt")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )

    said = re.findall(r"\] (in \w+|FAILED.*)", done.stdout)
    assert said == [
        "in ceilings",
        "in step",
        "FAILED: step ended its process (exit status -6)",
        "in input",
        "FAILED: input ended its process (exit status -9)",
        "in epoch",
        "in memory",
    ]
    assert done.stdout.endswith("2 sections ended; failed: step, input, epoch\n")
    assert done.returncode == 1
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == done.stdout


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
        import pathlib, sys, time
        sys.path.insert(0, "benchmarks")
        import gpu
        small = ["--arch", "small_cnn", "--batch", "4", "--crop", "32", "--images", "48"]
        only = ["--only", "correctness,epoch,memory", "--seconds", "2000"]
        options = gpu.parsed(["--device", "cuda", "--folder", folder, *small, *only])
        gpu.prepared(None, None)
        told = []
        with PretendedGpu() as device:
            from benchmarks import gpu_sections
            bench = gpu_sections.Bench.of(options, pathlib.Path(folder))
            names = options.only.split(",")
            ends = time.monotonic() + options.seconds
            gpu.run_sections(names, ends, bench, lambda *event: told.append(event))
        found = [told, device.faults]
        """,
        folder=str(tmp_path),
    )
    told, faults = found
    assert [name for how, name in told if how == "ended"] == ["correctness", "epoch", "memory"], (
        told
    )
    assert faults == []
