"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path


def machine(*packages: str) -> list[str]:
    """Lines about processor, load, Python and versions."""
    model = platform.processor() or "an unknown processor"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(
            line.partition(":")[2].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    load = os.getloadavg()[0]
    busy = "  (busy: repeat this on a quiet machine)" if load > 0.5 else ""
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return [
        f"machine: {model}, {len(os.sched_getaffinity(0))} cores, "
        + ("with bf16 instructions" if has_bf16() else "no bf16 instructions"),
        f"load before: {load:.2f}{busy}",
        f"python {platform.python_version()}, {versions}; commit {_commit()}",
    ]


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself; Linux only."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, encoding="utf-8"
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
