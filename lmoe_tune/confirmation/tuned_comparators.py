"""Searches of the methods that the winner is compared with: tuned against untuned would flatter it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmoe_tune.confirmation.plan import Candidate, candidate_of
from lmoe_tune.spec import METHOD, SHARED_PARAMETERS, Budget, Distribution, LoadedSpec, Spec
from lmoe_tune.spec.parameters import default_start
from lmoe_tune.sweep.budget import Budget as Bounds
from lmoe_tune.sweep.budget import BudgetChange
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, prepare, settle, write_records
from trainables import METHODS, load_method


def tunable(sweep: Spec) -> list[str]:
    """The shipped methods, other than the sweep's own, that have something to tune."""
    if METHOD in sweep.space:
        own = sweep.space[METHOD].choices or ()
    else:
        own = (sweep.trainable,)
    usable = [name for name in METHODS if name not in own and space_of(sweep, name)]
    if sweep.data.outliers is not None:
        return usable

    return [name for name in usable if not load_method(name).declaration.needs_outliers]


def space_of(sweep: Spec, method: str) -> dict[str, Distribution]:
    """What is searched of a method beside this sweep: what its declaration says is worth tuning.

    Parameters that several methods share (`outlier_ratio`, `lr`, ...) come on top where the sweep
    searches them, over its own range.
    """
    theirs = load_method(method).declaration.all_parameters
    space = {
        name: Distribution(low=known.tune.low, high=known.tune.high, log=known.tune.log)
        for name, known in theirs.items()
        if known.tune is not None
    }
    common = {parameter.name for parameter in SHARED_PARAMETERS}
    for other in METHODS:  # the same parameter with the same default in every method that has it
        for parameter in load_method(other).declaration.parameters:
            if theirs.get(parameter.name) == parameter and other != method:
                common.add(parameter.name)
    for name in common - space.keys():
        if name in sweep.space and name in theirs:
            space[name] = sweep.space[name].model_copy(update={"only_for": None})
    return space


def spec_of_method(sweep: Spec, bounds: Bounds, method: str) -> Spec:
    """The sweep's spec for another method, with the same budget."""
    space = space_of(sweep, method)
    declaration = load_method(method).declaration
    plain: Mapping[str, Any] = {name: entry.model_dump() for name, entry in space.items()}
    start = default_start(plain, [declaration], sweep.train.model_dump())
    shared = {parameter.name for parameter in SHARED_PARAMETERS}
    sampler = (
        "tpe" if sweep.search.sampler == "grid" else sweep.search.sampler
    )  # a grid needs steps
    return sweep.model_copy(
        update={
            "trainable": method,
            "fixed": {
                name: value
                for name, value in sweep.fixed.items()
                if name in shared and name not in space
            },
            "space": space,
            "warm_start": (),
            "search": sweep.search.model_copy(update={"sampler": sampler, "start_from": start}),
            "budget": Budget(
                trials=bounds.trials,
                time=bounds.time_s,
                gpu_hours=bounds.gpu_hours,
                max_failed=bounds.max_failed,
            ),
        }
    )


def open_search(
    sweep: Ledger, method: str, import_path: Path, command: str, *, allow_changes: bool
) -> Ledger:
    """The search of a method, started or continued; the caller holds its lock.

    Raises:
        UsageError: the sweep, the code or the data have changed since it was started.
    """
    folder = sweep.folder.tuned(method)
    wanted = spec_of_method(sweep.spec, sweep.budget, method)
    loaded = LoadedSpec(wanted, folder.spec)
    ready = prepare(folder, loaded, fresh=False, allow_changes=allow_changes)
    spec = ready.spec
    first = first_attrs(spec, BudgetChange(), import_path, folder.home)
    if not folder.exists():
        write_records(folder, spec)
    ledger = Ledger.writing(folder, spec, first)
    settle(
        ledger,
        BudgetChange(),
        spec_budget=Bounds.of(spec),
        import_path=import_path,
        spec_changes=ready.changes,
        allow_changes=allow_changes,
    )
    ledger.set_attr("resume_command", command)
    write_records(folder, spec)
    return ledger


def tuned_candidate(search: Ledger, import_path: Path) -> Candidate | None:
    """The best of a method's search, or None if no trial is complete."""
    best = search.best()
    if best is None:
        return None
    found = candidate_of(search.spec, best, import_path)
    return replace(found, name=f"{found.method} tuned", trial=None)
