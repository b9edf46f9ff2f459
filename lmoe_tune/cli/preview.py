"""What `search --dry-run` shows: the first configurations, the slots, and what it may cost."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lmoe_tune import cost as model
from lmoe_tune.cli.output import print_json, print_table, shown
from lmoe_tune.data import describe_splits
from lmoe_tune.memory_plan import memory_plan
from lmoe_tune.spec import METHOD, Spec
from lmoe_tune.sweep.budget import Budget
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.nodes import Capacity, refuse_too_large, slots_of
from lmoe_tune.sweep.sampling import first_suggestions
from lmoe_tune.sweep.warm_start import in_words, would_take
from lmoe_tune.training.baseline_record import baseline_key, read_baseline_record
from lmoe_tune.training.platform import gpu_bytes, resolve_platform

if TYPE_CHECKING:
    from lmoe_tune.sweep.budget import BudgetChange

NUM_SHOWN = 8


def print_preview(
    spec: Spec, change: BudgetChange, home: Path, folder: Path, *, as_json: bool
) -> None:
    """Print what a sweep would do. Starts nothing and writes nothing."""
    spec, sources = would_take(resolve_platform(spec), SweepFolder(home, spec.name))
    budget = change.applied(Budget.of(spec))
    machine = Capacity(cpus=os.cpu_count() or 1, gpus=len(list(Path("/dev").glob("nvidia[0-9]*"))))
    refuse_too_large([machine], spec.resources)
    slots = slots_of([machine], spec.resources, spec.search.max_concurrent)
    configurations = first_suggestions(spec, min(NUM_SHOWN, budget.trials or NUM_SHOWN))
    cost = estimate(spec, budget.trials, slots, home)
    plan = memory_plan(spec, folder)
    memory = None if plan is None else plan.compared(gpu_bytes())
    if as_json:
        print_json(
            {
                "sweep": spec.name,
                "trials": budget.trials,
                "slots": slots,
                "configurations": configurations,
                "cost": cost,
                "memory": memory,
            }
        )
        return
    trials = budget.trials or "unlimited"
    if METHOD in spec.space:
        methods = spec.space[METHOD].choices
    else:
        methods = (spec.trainable,)
    typer.echo(
        f"{', '.join(map(str, methods or ()))} on {spec.data.id.dataset}: {trials} trials of {spec.train.epochs} epochs"
    )
    typer.echo(
        f"slots: {slots} at a time on this machine ({machine.cpus:g} CPUs, {machine.gpus:g} GPUs)"
    )
    typer.echo(
        f"device {spec.train.device}, precision {spec.train.precision}, {spec.train.threads} thread(s) a trial"
    )
    sampler = f"sampler {spec.search.sampler}, seed {spec.search.seed}"
    typer.echo(f"\nfirst configurations (later ones depend on results; {sampler}):")
    columns = list(spec.space)
    rows = [
        [str(place), *(shown(row.get(name)) for name in columns)]
        for place, row in enumerate(configurations)
    ]
    print_table(rows, ["trial", *columns])
    for line in in_words(sources):
        typer.echo(line)
    if memory is not None:
        typer.echo(f"\nmemory: {memory}")
    typer.echo("\ncost, without pruning:")
    for key, value in cost.items():
        typer.echo(f"  {key:28} {f'{value:,}' if isinstance(value, int) else shown(value)}")


def estimate(spec: Spec, trials: int | None, slots: int, home: Path) -> dict[str, Any]:
    """Images through the network, forward and backward; an outlier counts twice, as it is also mixed in.

    The time is that of the baseline's epochs, image by image, where the home has it already.
    """
    splits = describe_splits(spec.data, home)
    images = splits["images"]
    if images["outliers"]:
        ratio = spec.fixed.get("outlier_ratio", 1.0)
    else:
        ratio = 0.0
    if "outlier_ratio" in spec.space:
        entry = spec.space["outlier_ratio"]
        if entry.choices:
            values = [float(value) for value in entry.choices]
        else:
            values = [entry.low or 0.0, entry.high or 0.0]
        ratio = sum(values) / len(values)
    per_epoch = round(images["train"] * (1 + 2 * float(ratio)))
    evaluated = images["val"] + images["val_fine"] + images["val_coarse"]
    record = read_baseline_record(home, baseline_key(spec, splits["fingerprint"]))
    trial_s, baseline_s = None, 0.0
    if record is not None and record["epochs"] and spec.model.baseline.epochs:
        epoch_s = statistics.median(epoch["metrics"]["epoch_s"] for epoch in record["epochs"])
        trial_s = epoch_s * per_epoch / images["train"] * spec.train.epochs
        baseline_s = epoch_s * (spec.model.baseline.epochs - len(record["epochs"]))
    return {
        "images trained per trial": per_epoch * spec.train.epochs,
        "images evaluated per trial": evaluated * spec.train.epochs,
        "images trained in all": per_epoch * spec.train.epochs * trials if trials else "unlimited",
        "baseline images": images["train"] * spec.model.baseline.epochs,
        "seconds per trial": trial_s
        if trial_s is not None
        else "not known before the baseline is trained",
        "hours in all": (baseline_s + trial_s * trials / slots) / 3600
        if trial_s is not None and trials
        else "not known",
        **_gpu_hours(spec, trials, slots, trial_s, baseline_s),
    }


def _gpu_hours(
    spec: Spec, trials: int | None, slots: int, trial_s: float | None, baseline_s: float
) -> dict[str, Any]:
    """GPU-hours that would be reserved; slots that wait for the baseline hold theirs. Nothing on CPUs."""
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
