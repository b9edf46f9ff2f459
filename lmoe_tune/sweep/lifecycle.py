"""Starting, continuing and extending a sweep: what must hold before the first trial of a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from optuna.distributions import check_distribution_compatibility

from lmoe_tune import __version__, advice
from lmoe_tune.data import describe_splits, load_search_data
from lmoe_tune.data.inspection import refuse_unsound
from lmoe_tune.data.rows import refuse_no_room
from lmoe_tune.data.usable_images import Say
from lmoe_tune.durable import write_aside, write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.source_code import changes, code_of
from lmoe_tune.spec import LoadedSpec, Spec, diff, resolved_yaml, with_start_of
from lmoe_tune.spec.record import CHANGEABLE, CHANGEABLE_DATA, SETTLED_AT_START
from lmoe_tune.sweep import schema, view
from lmoe_tune.sweep.budget import Budget, BudgetChange
from lmoe_tune.sweep.copies import refuse_copy
from lmoe_tune.sweep.folder import SweepFolder, refuse_lost_ledger, refuse_unreadable
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.sweep.same_data import change_of_data
from lmoe_tune.sweep.sampling import make_distributions, make_sampler
from lmoe_tune.sweep.warm_start import Source, warm_started
from lmoe_tune.training.baseline_record import baseline_key
from lmoe_tune.training.platform import resolve_platform

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Prepared:
    """What a run starts with."""

    spec: Spec
    changes: tuple[str, ...] = ()
    """What is different from the spec that the sweep was started with, a line each; allowed."""
    sources: tuple[Source, ...] = ()
    """The points that a new sweep takes from others."""


def prepare(
    folder: SweepFolder,
    loaded: LoadedSpec,
    *,
    fresh: bool,
    allow_changes: bool = False,
    say: Say | None = None,
    warn: Callable[[str], None] | None = None,
) -> Prepared:
    """The spec to run.

    The spec of an unfinished sweep must say the same as when it was started, unless
    `allow_changes`.

    Args:
        say: is told how far the reading of the data is.
        warn: is told, before a sweep's first run, what is odd about the data but no reason to stop.

    Raises:
        UsageError: the sweep cannot be read, or exists with another spec (with a line per
            difference), something is wrong with the data or with a sweep to start from, or the
            decoded images of a new sweep will not fit on the disk.
    """
    refuse_unreadable(folder)
    make_sampler(loaded.spec, 0)  # refuses one whose package is missing
    refuse_unusable(folder.home)
    is_new = fresh or not folder.exists()
    refuse_unsound(loaded.spec.data, folder.home, say, warn if is_new else None)
    if is_new:
        data = loaded.spec.data
        refuse_no_room(load_search_data(data, folder.home).files(), data, folder.home)
        ready, sources = warm_started(resolve_platform(loaded.spec), folder.home)
        if fresh and (folder.exists() or folder.about.exists()):
            _set_aside(folder)
        refuse_lost_ledger(folder)
        return Prepared(ready, sources=tuple(sources))

    return continued(folder, loaded.spec, allow_changes=allow_changes)


def continued(folder: SweepFolder, wanted: Spec, *, allow_changes: bool = False) -> Prepared:
    """The spec with which a sweep that exists goes on.

    Raises:
        UsageError: it was started with another spec (with a line per difference).
    """
    frozen = view.read_spec(folder)
    differences = diff(frozen, wanted)
    if not differences:
        return Prepared(with_run_settings(frozen, wanted))
    lines = "\n".join(f"  {line}" for line in differences)
    if not allow_changes:
        raise UsageError(
            f"the sweep '{folder.name}' was started with another spec:\n{lines}\n"
            "Start another sweep with --name, or this one again with --fresh (the old one is set aside), or "
            f"continue anyway with {advice.ALLOW_CHANGES}, which the sweep records"
        )
    _refuse_incomparable(frozen, wanted)
    settled = resolve_platform(with_settled(frozen, wanted))
    return Prepared(settled, changes=tuple(differences))


def _refuse_incomparable(frozen: Spec, wanted: Spec) -> None:
    """Refuse changes that would make the trials so far incomparable with the next ones."""
    old, new = frozen.objective, wanted.objective
    if (old.metrics, old.directions) != (new.metrics, new.directions):
        raise UsageError(
            "objective: trials judged by different metrics cannot be compared; start another sweep"
        )
    for name in frozen.space.keys() & wanted.space.keys():
        before, after = make_distributions(frozen)[name], make_distributions(wanted)[name]
        try:
            check_distribution_compatibility(before, after)
        except ValueError:
            raise UsageError(
                f"space.{name}: its choices, kind and log scale cannot change within a sweep; start another one"
            ) from None


def with_settled(frozen: Spec, wanted: Spec) -> Spec:
    """The wanted spec; what it leaves open (platform, points of other sweeps) is as it was decided
    at the start.
    """
    train = wanted.train
    for section, key in SETTLED_AT_START:
        assert section == "train", section
        if getattr(train, key) in (None, "auto"):
            train = train.model_copy(update={key: getattr(frozen.train, key)})
    return with_start_of(frozen, wanted.model_copy(update={"train": train}))


def with_run_settings(frozen: Spec, wanted: Spec) -> Spec:
    """The frozen spec with what may change from one run to the next."""
    data = frozen.data.model_copy(
        update={key: getattr(wanted.data, key) for key in CHANGEABLE_DATA}
    )
    return frozen.model_copy(
        update={"data": data} | {name: getattr(wanted, name) for name in CHANGEABLE}
    )


def write_records(folder: SweepFolder, spec: Spec) -> None:
    """Write what describes a sweep beside its ledger: the frozen spec and the environment."""
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.spec.exists() or view.read_spec(folder) != spec:
        write_durably(folder.spec, resolved_yaml(spec).encode())
    if not folder.environment.exists():
        write_durably(
            folder.environment,
            json.dumps(environment(spec, folder.home), indent=1, default=list).encode(),
        )


def first_attrs(
    spec: Spec,
    change: BudgetChange,
    import_path: Path,
    home: Path,
    sources: Sequence[Source] = (),
) -> dict[str, Any]:
    """What a new sweep's first transaction records: a kill right after it must not lose any part of
    the command.

    Args:
        sources: what it takes of other sweeps.
    """
    taken = {schema.WARM_START.name: [source.as_record() for source in sources]} if sources else {}
    return taken | {
        "budget": vars(change.applied(Budget.of(spec))),
        "spec_budget": vars(Budget.of(spec)),
        **_data_and_code(spec, home, import_path),
        "import_path": str(import_path),
    }


def _data_and_code(spec: Spec, home: Path, import_path: Path) -> dict[str, Any]:
    fingerprint = describe_splits(spec.data, home)["fingerprint"]
    return {
        "fingerprint": fingerprint,
        "baseline": baseline_key(spec, fingerprint),
        "code": code_of(spec, import_path),
    }


def settle(
    ledger: Ledger,
    change: BudgetChange,
    *,
    spec_budget: Budget | None,
    import_path: Path,
    spec_changes: Sequence[str] = (),
    allow_changes: bool = False,
) -> None:
    """Record what this run works with: its budget, its code, and what has changed since the sweep
    was started.

    Args:
        spec_budget: the spec's budget where a spec was given; it holds if it is not the one that
            was given last.
        import_path: where the user's own trainables are.
        spec_changes: what is allowed to be different in the spec, a line each.

    Raises:
        UsageError: the data or the code have changed since the sweep was started, and that is not
            allowed; or the sweep is a copy of another one.
    """
    refuse_copy(ledger)
    name, before = ledger.folder.name, ledger.attrs
    attrs = _data_and_code(ledger.spec, ledger.folder.home, import_path)
    code = attrs["code"]
    changed = list(spec_changes)
    in_data = change_of_data(ledger, ledger.spec.data)
    if in_data is not None:
        if not allow_changes:
            raise UsageError(
                f"the data of the sweep '{name}' have changed since it was started, so its trials could not be "
                f"compared:\n  {in_data}\nRestore the old data, start another sweep with --name, or continue anyway "
                f"with {advice.ALLOW_CHANGES}, which the sweep records"
            )
        changed.append(in_data)
    in_code = changes(before.get("code", code), code)
    if in_code and not allow_changes:
        lines = "\n".join(f"  {line}" for line in in_code)
        raise UsageError(
            f"the code of the sweep '{name}' has changed since it was started:\n{lines}\n"
            f"Restore the old code, start another sweep with --name, or continue anyway with {advice.ALLOW_CHANGES}, "
            "which the sweep records"
        )
    changed += in_code
    if changed:
        attrs[f"change:{ledger.num_runs():04d}"] = {"time_ms": now_ms(), "lines": changed}
    if spec_budget is not None:
        attrs["spec_budget"] = vars(spec_budget)
    attrs["budget"] = vars(budget_now(ledger, change, spec_budget))
    ledger.set_attrs(attrs)


def budget_now(ledger: Ledger, change: BudgetChange, spec_budget: Budget | None) -> Budget:
    """What a sweep may use in its next run; see `settle`."""
    budget = ledger.budget
    if spec_budget is not None:
        before = ledger.get(schema.SPEC_BUDGET)
        if before not in (None, vars(spec_budget)):
            budget = spec_budget
    return change.applied(budget, ledger.usage())


def refuse_unusable(home: Path) -> None:
    """Raises UsageError if `home` cannot be a folder to write to."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{home}: cannot be used as the home ({error.strerror}); choose another with --home"
        ) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise UsageError(f"{home}: is not writable; choose another home with --home")


def environment(spec: Spec, home: Path) -> dict[str, Any]:
    """Versions, hardware, data and the code's commit; nothing that is secret."""
    return {
        "lmoe_tune": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "host": platform.node(),
        "gpu": _gpu(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "data": describe_splits(spec.data, home),
    }


def _gpu() -> str | None:
    """The kind of GPU of this machine, as its driver says it; torch would take seconds to ask."""
    for about in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in about.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "Model":
                return value.strip()
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _set_aside(folder: SweepFolder) -> None:
    with folder.locked():
        stem = f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"
        names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
        candidates = map(folder.path.with_name, names)
        aside = next(path for path in candidates if not path.exists())
        folder.path.rename(aside)
        write_aside(SweepFolder(folder.home, aside.name).aside, b"")
