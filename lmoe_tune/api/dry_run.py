"""What a search would do: the first configurations, the slots, and what it may cost. Starts
nothing, writes nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune import cost as model
from lmoe_tune.api.loading import load_spec
from lmoe_tune.data import describe_splits
from lmoe_tune.home import resolve_home
from lmoe_tune.memory_plan import memory_plan
from lmoe_tune.spec import LoadedSpec, Spec
from lmoe_tune.spec.outliers import mean_outlier_ratio
from lmoe_tune.sweep.budget import Budget, BudgetChange, change_of
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.nodes import Capacity, slots_of
from lmoe_tune.sweep.readiness import machine_for
from lmoe_tune.sweep.sampling import first_suggestions
from lmoe_tune.sweep.warm_start import Source, would_take
from lmoe_tune.training.baseline_record import baseline_key, read_baseline_record
from lmoe_tune.training.platform import gpu_bytes, resolve_platform

NUM_SHOWN = 8


@dataclass(frozen=True)
class DryRun:
    """What a search would do on this machine."""

    spec: Spec
    """With the settings filled in that this machine decides."""
    trials: int | None
    """How many in all; None if the budget does not count them."""
    sources: Sequence[Source]
    """Other sweeps that points are taken from."""
    machine: Capacity
    slots: int
    """How many trials run at a time."""
    configurations: Sequence[Mapping[str, Any]]
    """The parameters of the first trials."""
    cost: Mapping[str, Any]
    memory: str | None
    """How much memory a trial needs, in words, if that is known."""

    def document(self) -> dict[str, Any]:
        """As plain values: `search --dry-run --json`."""
        return {
            "sweep": self.spec.name,
            "trials": self.trials,
            "slots": self.slots,
            "configurations": self.configurations,
            "cost": self.cost,
            "memory": self.memory,
        }


def dry_run(
    spec: LoadedSpec | str | Path,
    *,
    home: str | Path | None = None,
    trials: int | None = None,
    time: str | float | None = None,
    gpu_hours: float | None = None,
) -> DryRun:
    """What `search` would do with these arguments, on this machine; nothing is started.

    Raises:
        SpecError: the spec has problems; all of them are in it.
        UsageError: a trial is too large for this machine, or an argument is not as it must be.
    """
    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours)
    if not isinstance(spec, LoadedSpec):
        spec = load_spec(spec, bounded=change != BudgetChange())
    return foreseen(spec, change, resolve_home(home))


def foreseen(loaded: LoadedSpec, change: BudgetChange, home: Path) -> DryRun:
    """`dry_run`, after all its arguments were read and checked."""
    wanted = resolve_platform(loaded.spec)
    spec, sources = would_take(wanted, SweepFolder(home, wanted.name))
    trials = change.applied(Budget.of(spec)).trials
    machine = machine_for(spec.resources)
    slots = slots_of([machine], spec.resources, spec.search.max_concurrent)
    configurations = first_suggestions(spec, min(NUM_SHOWN, trials or NUM_SHOWN))
    plan = memory_plan(spec, loaded.folder)
    memory = None if plan is None else plan.compared(gpu_bytes())
    cost = estimate(spec, trials, slots, home)
    return DryRun(spec, trials, sources, machine, slots, configurations, cost, memory)


def estimate(spec: Spec, trials: int | None, slots: int, home: Path) -> dict[str, Any]:
    """Images through the network, forward and backward; an outlier counts twice, as it is also
    mixed in.

    The time is taken from the baseline's epochs, per image, if the home has the baseline already.
    """
    splits = describe_splits(spec.data, home)
    images = splits["images"]
    ratio = mean_outlier_ratio(spec) if images["outliers"] else 0.0
    per_trial = round(images["train"] * (1 + 2 * ratio)) * spec.train.epochs
    evaluated = images["val"] + images["val_fine"] + images["val_coarse"]
    cost = {
        "images trained per trial": per_trial,
        "images evaluated per trial": evaluated * spec.train.epochs,
        "images trained in all": per_trial * trials if trials else "unlimited",
        "baseline images": images["train"] * spec.model.baseline.epochs,
        "seconds per trial": "not known before the baseline is trained",
        "hours in all": "not known",
    }

    trial_s, baseline_s = None, 0.0
    record = read_baseline_record(home, baseline_key(spec, splits["fingerprint"]))
    if record is not None and record["epochs"] and spec.model.baseline.epochs:
        epoch_s = statistics.median(epoch["metrics"]["epoch_s"] for epoch in record["epochs"])
        cost["seconds per trial"] = trial_s = epoch_s * per_trial / images["train"]
        baseline_s = epoch_s * (spec.model.baseline.epochs - len(record["epochs"]))
        if trials:
            cost["hours in all"] = (baseline_s + trial_s * trials / slots) / 3600
    return cost | _gpu_hours(spec, trials, slots, trial_s, baseline_s)


def _gpu_hours(
    spec: Spec, trials: int | None, slots: int, trial_s: float | None, baseline_s: float
) -> dict[str, Any]:
    """GPU-hours that would be reserved; slots that wait for the baseline hold theirs. Nothing on
    CPUs.
    """
    name = "GPU-hours reserved in all"
    if not spec.resources.gpu:
        return {}
    if not trials:
        return {name: "as many as budget.gpu_hours or budget.time allow"}
    if trial_s is not None:
        reserved_s = baseline_s * min(slots, trials) + trial_s * trials
        return {name: spec.resources.gpu * reserved_s / 3600}

    bounded = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": trials})})
    rough = model.estimate(bounded)
    if rough is None:
        return {name: "not known"}
    return {
        name: f"{rough.gpu_hours:,.2g} by a rough model (a factor of 3), the baseline's wait included"
    }
