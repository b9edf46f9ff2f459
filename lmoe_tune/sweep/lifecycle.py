"""Starting, continuing and extending a sweep: what must hold before the first trial of a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lmoe_tune import __version__
from lmoe_tune.data import describe_splits
from lmoe_tune.durable import write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import LoadedSpec, Spec, diff, resolved_yaml
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Budget, Ledger
from lmoe_tune.sweep.sampling import make_sampler
from lmoe_tune.training.baseline_record import baseline_key
from lmoe_tune.training.platform import resolve_platform

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True)
class BudgetChange:
    """What a command line says about the budget; None leaves it as it is."""

    trials: int | None = None
    """In all, runs before included."""
    more_trials: int = 0
    time_s: float | None = None
    gpu_hours: float | None = None

    def applied(self, budget: Budget, *, num_started: int = 0) -> Budget:
        """The budget after the change, for a sweep of which so many trials have been started."""
        trials = budget.trials if self.trials is None else max(self.trials, num_started)
        if self.more_trials:
            trials = (num_started if trials is None else trials) + self.more_trials
        return Budget(
            trials=trials,
            time_s=budget.time_s if self.time_s is None else self.time_s,
            gpu_hours=budget.gpu_hours if self.gpu_hours is None else self.gpu_hours,
            max_failed=budget.max_failed,
        )


def prepare(folder: SweepFolder, loaded: LoadedSpec, *, fresh: bool) -> Spec:
    """The spec to run: the new sweep's, or that of the unfinished one, which must say the same.

    Raises:
        UsageError: the sweep exists with another spec (with a line per difference), or the data cannot be read.
    """
    make_sampler(loaded.spec, 0)  # refuses one whose package is missing
    describe_splits(loaded.spec.data)  # refuses data that cannot be read
    refuse_unusable(folder.home)
    if fresh and folder.exists():
        _set_aside(folder)
    if not folder.exists():
        return resolve_platform(loaded.spec)
    frozen = view.read_spec(folder)
    differences = diff(frozen, loaded.spec)
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise UsageError(
            f"the sweep '{folder.name}' was started with another spec:\n{lines}\n"
            f"Start another sweep with --name, or this one anew with --fresh (the old one is kept aside)"
        )
    return with_run_settings(frozen, loaded.spec)


def with_run_settings(frozen: Spec, wanted: Spec) -> Spec:
    """The frozen spec with the sections that may change from one run to the next."""
    return frozen.model_copy(
        update={"budget": wanted.budget, "resources": wanted.resources, "tracking": wanted.tracking}
    )


def write_records(folder: SweepFolder, spec: Spec) -> None:
    """Write what describes a sweep beside its ledger: the frozen spec and the environment."""
    folder.path.mkdir(parents=True, exist_ok=True)
    text = resolved_yaml(spec).encode()
    if not folder.spec.exists() or folder.spec.read_bytes() != text:
        write_durably(folder.spec, text)
    if not folder.environment.exists():
        write_durably(folder.environment, json.dumps(environment(spec), indent=1, default=list).encode())


def first_attrs(spec: Spec, change: BudgetChange, import_path: Path) -> dict[str, Any]:
    """What a new sweep's first transaction records: a kill right after it must lose nothing of the command."""
    fingerprint = describe_splits(spec.data)["fingerprint"]
    return {
        "budget": vars(change.applied(Budget.of(spec))),
        "spec_budget": vars(Budget.of(spec)),
        "fingerprint": fingerprint,
        "baseline": baseline_key(spec, fingerprint),
        "import_path": str(import_path),
    }


def settle(ledger: Ledger, change: BudgetChange, *, spec_budget: Budget | None) -> None:
    """Record the budget that this run works with.

    Args:
        spec_budget: the spec's budget where a spec was given; it holds if it is not the one that was given last.

    Raises:
        UsageError: the data are not those that the sweep was started with.
    """
    fingerprint = describe_splits(ledger.spec.data)["fingerprint"]
    if ledger.attrs.get("fingerprint", fingerprint) != fingerprint:
        raise UsageError(
            f"the data of the sweep '{ledger.folder.name}' have changed since it was started, so its trials could "
            "not be compared: bring the old data back, or start another sweep with --name"
        )
    budget, attrs = ledger.budget, {}
    if spec_budget is not None:
        attrs["spec_budget"] = vars(spec_budget)
        if ledger.attrs.get("spec_budget", attrs["spec_budget"]) != attrs["spec_budget"]:
            budget = spec_budget
    attrs["budget"] = vars(change.applied(budget, num_started=ledger.num_started()))
    ledger.set_attrs(attrs)


def refuse_unusable(home: Path) -> None:
    """Raises UsageError where `home` cannot be a folder to write in."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{home}: cannot be used as the home ({error.strerror}); choose another with --home"
        ) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise UsageError(f"{home}: cannot be written in; choose another home with --home")


def environment(spec: Spec) -> dict[str, Any]:
    """Versions, hardware, data and the code's commit; nothing that is secret."""
    return {
        "lmoe_tune": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "data": describe_splits(spec.data),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _set_aside(folder: SweepFolder) -> None:
    with folder.locked():
        stem = f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        candidates = (folder.path.with_name(f"{stem}{suffix}") for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
        folder.path.rename(next(path for path in candidates if not path.exists()))
