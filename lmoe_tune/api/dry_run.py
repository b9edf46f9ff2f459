"""What a search would do: the first configurations, the slots, and what it may cost. Starts
nothing, writes nothing.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
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
from lmoe_tune.sweep.budget import Budget, BudgetChange, change_of, why_complete
from lmoe_tune.sweep.folder import SweepFolder, refuse_unreadable
from lmoe_tune.sweep.ledger import Ledger, Suggestion
from lmoe_tune.sweep.lifecycle import budget_now, continued
from lmoe_tune.sweep.nodes import Capacity, slots_of
from lmoe_tune.sweep.readiness import machine_for
from lmoe_tune.sweep.view import counts_of
from lmoe_tune.sweep.warm_start import Source, sources_of, warm_started
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
    started: Mapping[str, int]
    """How many of them there are already, by their state; those that are `running` continue."""
    left: int | None
    """How many are still to be trained, or to continue; None if nothing counts them."""
    complete: str | None
    """Why none is left, and how to extend the sweep."""
    sources: Sequence[Source]
    """Other sweeps that points are taken from."""
    machine: Capacity
    slots: int
    """How many trials run at a time."""
    numbers: Sequence[int]
    """Of the next trials: first those that continue."""
    configurations: Sequence[Mapping[str, Any]]
    """Their parameters."""
    cost: Mapping[str, Any]
    """Of what is left."""
    memory: str | None
    """How much memory a trial needs, in words, if that is known."""

    def document(self) -> dict[str, Any]:
        """As plain values: `search --dry-run --json`."""
        return {
            "sweep": self.spec.name,
            "trials": self.trials,
            "started": self.started,
            "left": self.left,
            "slots": self.slots,
            "configurations": self.configurations,
            "cost": self.cost,
            "memory": self.memory,
        }


def dry_run(
    spec: LoadedSpec | str | Path,
    *,
    home: str | Path | None = None,
    trials: str | int | None = None,
    time: str | float | None = None,
    gpu_hours: float | None = None,
) -> DryRun:
    """What `search` would do with these arguments, on this machine; nothing is started.

    Raises:
        SpecError: the spec has problems; all of them are in it.
        UsageError: a trial is too large for this machine, an argument is not as it must be, or
            there is a sweep of that name with another spec.
    """
    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours)
    if not isinstance(spec, LoadedSpec):
        spec = load_spec(spec, bounded=change != BudgetChange())
    return foreseen(spec, change, resolve_home(home))


def foreseen(
    loaded: LoadedSpec,
    change: BudgetChange,
    home: Path,
    *,
    fresh: bool = False,
    allow_changes: bool = False,
) -> DryRun:
    """`dry_run`, after all its arguments were read and checked."""
    folder = SweepFolder(home, loaded.spec.name)
    refuse_unreadable(folder)
    if fresh or not folder.exists():
        recorded = None
        spec, sources = warm_started(resolve_platform(loaded.spec), home)
    else:
        spec = continued(folder, loaded.spec, allow_changes=allow_changes).spec
        recorded = Ledger.reading(folder, spec)
        sources = sources_of(recorded)

    machine = machine_for(spec.resources)
    slots = slots_of([machine], spec.resources, spec.search.max_concurrent)
    with tempfile.TemporaryDirectory(prefix="lmoe-tune-dry-run-") as scratch:
        ledger = _copied(recorded, SweepFolder(Path(scratch), spec.name), spec)
        budget = budget_now(ledger, change, Budget.of(loaded.spec))
        ledger.set_attr("budget", vars(budget))
        started, left, used = counts_of(ledger), _num_left(ledger), ledger.exhausted()
        complete = None
        if used is not None and ledger.is_complete():
            complete = why_complete(used, spec.name, home)
        following = _next_trials(ledger)

    plan = memory_plan(spec, loaded.folder)
    return DryRun(
        spec=spec,
        trials=budget.trials,
        started=started,
        left=left,
        complete=complete,
        sources=sources,
        machine=machine,
        slots=slots,
        numbers=[one.number for one in following],
        configurations=[one.params for one in following],
        cost=estimate(spec, left, slots, home),
        memory=None if plan is None else plan.compared(gpu_bytes()),
    )


def _copied(recorded: Ledger | None, scratch: SweepFolder, spec: Spec) -> Ledger:
    """A copy to ask for the next trials: with what there is, they are what a search would get."""
    scratch.path.mkdir(parents=True)
    if recorded is not None:
        shutil.copyfile(recorded.folder.ledger, scratch.ledger)
    return Ledger.writing(scratch, spec)


def _num_left(ledger: Ledger) -> int | None:
    """Trials that are still to be trained, or to continue; None if nothing counts them."""
    unfinished = len(ledger.standing.running)
    if ledger.exhausted() is not None:
        return unfinished

    usage, bounds = ledger.usage(), list[int]()
    if ledger.budget.trials is not None:
        bounds.append(ledger.budget.trials - usage.trials)
    if ledger.num_points is not None:
        bounds.append(ledger.num_points - usage.points)
    if not bounds:
        return None
    return unfinished + usage.waiting_retries + max(0, min(bounds))


def _next_trials(ledger: Ledger) -> list[Suggestion]:
    """The first few: those that continue, and then as they are suggested now."""
    found = ledger.unfinished()[:NUM_SHOWN]
    while len(found) < NUM_SHOWN and ledger.exhausted() is None:
        found.append(ledger.ask())
    return found


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
        "images trained in all": "unlimited" if trials is None else per_trial * trials,
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
        if trials is not None:
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
    if trials is None:
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
