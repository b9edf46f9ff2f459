"""What `lmoe-tune doctor` looks at."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError, UsageError

PACKAGES = {"torch": "2.9", "torchvision": "0.24", "ray": "2.50", "optuna": "5.0", "mlflow": "3.10"}
LITTLE_SPACE_GB = 2.0


def examine(home: Path) -> list[dict[str, Any]]:
    """All findings, each with `state` (ok, warn, fail), `what`, `found` and `advice`."""
    return [*_packages(), *_hardware(), *_home(home), *_sweeps(home), _tracking(home)]


def _finding(state: str, what: str, found: str, advice: str = "") -> dict[str, Any]:
    return {"state": state, "what": what, "found": found, "advice": advice}


def _packages() -> list[dict[str, Any]]:
    findings = []
    for name, least in PACKAGES.items():
        try:
            version = metadata.version(name)
            import_module(name)
        except Exception as error:  # a broken installation may raise anything
            findings.append(
                _finding(
                    "fail",
                    name,
                    f"{type(error).__name__}: {error}",
                    f"pip install '{name}>={least}'",
                )
            )
            continue
        old = _numbers(version) < _numbers(least)
        findings.append(
            _finding(
                "warn" if old else "ok", name, version, f"needs {least} or newer" if old else ""
            )
        )
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _hardware() -> list[dict[str, Any]]:
    findings = [_finding("ok", "CPU cores", str(os.cpu_count()))]
    try:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        findings.append(_finding("ok", "GPUs", ", ".join(names) or "none (the CPU is used)"))
    except Exception as error:
        findings.append(
            _finding(
                "warn",
                "GPUs",
                f"{type(error).__name__}: {error}",
                "see that torch and the driver fit",
            )
        )
    return findings


def _home(home: Path) -> list[dict[str, Any]]:
    there = home
    while not there.exists():
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".lmoe-tune-"):
            pass
        writable = _finding(
            "ok",
            "home",
            f"{home} ({'is there' if home.exists() else 'is made by the first sweep'})",
        )
    except OSError as error:
        writable = _finding(
            "fail",
            "home",
            f"{home}: {error.strerror}",
            "choose another with --home or LMOE_TUNE_HOME",
        )
    free_gb = shutil.disk_usage(there).free / 1e9
    little = free_gb < LITTLE_SPACE_GB
    space = _finding(
        "warn" if little else "ok", "free space", f"{free_gb:.0f} GB", "make room" if little else ""
    )
    return [writable, space]


def _sweeps(home: Path) -> list[dict[str, Any]]:
    from lmoe_tune.sweep.folder import SweepFolder, find_sweeps
    from lmoe_tune.sweep.journal import LedgerError
    from lmoe_tune.sweep.rebuild import behind, survey
    from lmoe_tune.sweep.view import read_spec, read_sweep, state_of

    findings = []
    without_ledger = [
        SweepFolder(home, path.name)
        for path in sorted((home / "sweeps").glob("*"))
        if (path / "sweep.json").is_file() and not (path / "ledger.jsonl").exists()
    ]
    for folder in [*find_sweeps(home), *without_ledger]:
        what, advice = f"sweep {folder.name}", f"lmoe-tune doctor --rebuild {folder.name}"
        try:
            ledger = read_sweep(folder) if folder.exists() else None
            lacking = behind(ledger) if ledger is not None else f"{folder.ledger} is gone"
        except LedgerError as error:
            ledger, lacking = None, str(error)
        except (LmoeTuneError, OSError) as error:
            findings.append(_finding("fail", what, str(error)))
            continue
        if lacking is not None:
            try:
                remains = f"{survey(folder, read_spec(folder))} can be rebuilt"
            except (LmoeTuneError, OSError) as error:
                remains, advice = str(error), ""
            findings.append(
                _finding("warn" if ledger else "fail", what, f"{lacking}; {remains}", advice)
            )
            continue
        assert ledger is not None, "a ledger that lacks nothing"
        state = state_of(ledger)
        advice = f"lmoe-tune resume {folder.name}" if state == "interrupted" else ""
        findings.append(_finding("ok", what, f"{state}, {len(ledger.trials())} trials", advice))
    return findings


def rebuild_ledger(home: Path, name: str) -> str:
    """Rebuild a sweep's ledger; returns what was done, in words.

    Raises:
        UsageError: there is no such sweep, or nothing is wrong with its ledger.
        LmoeTuneError: somebody works on it, or nothing is left to build it from.
    """
    from lmoe_tune.sweep.folder import SweepFolder, is_name
    from lmoe_tune.sweep.rebuild import rebuild, refuse_whole
    from lmoe_tune.sweep.view import read_spec
    from lmoe_tune.wording import masked, printable

    folder = SweepFolder(home, name)
    if not (is_name(name) and folder.spec.is_file()):
        raise UsageError(f"no sweep '{printable(masked(name))}' in {home / 'sweeps'}")
    spec = read_spec(folder)
    with folder.locked():
        refuse_whole(folder, spec)
        remains, kept = rebuild(folder, spec)
    return (
        f"rebuilt {folder.ledger}: {remains}. The old file is kept as {kept.name}; "
        f"go on with: lmoe-tune resume {name}"
    )


def _tracking(home: Path) -> dict[str, Any]:
    from lmoe_tune.tracking import default_uri, probe

    found = probe(default_uri(home))
    if found.state == "refused":
        return _finding("fail", "MLflow", found.why)
    if found.state == "away":
        return _finding("warn", "MLflow", found.why, "sweeps run without it and deliver later")
    if found.caution:
        return _finding("warn", "MLflow", found.caution)
    return _finding("ok", "MLflow", found.uri)
