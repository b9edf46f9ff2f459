"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path


def machine(*packages: str) -> list[str]:
    """Lines about processor, load, Python and versions."""
    model, bf16 = platform.processor() or "an unknown processor", "no bf16 instructions"
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
        bf16 = next((f"with {flag}" for flag in ("amx_bf16", "avx512_bf16") if flag in text), bf16)
    except (OSError, StopIteration):
        pass
    load = os.getloadavg()[0]
    busy = "  (busy: repeat this on a quiet machine)" if load > 0.5 else ""
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return [
        f"machine: {model}, {len(os.sched_getaffinity(0))} cores, {bf16}",
        f"load before: {load:.2f}{busy}",
        f"python {platform.python_version()}, {versions}; commit {_commit()}",
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
