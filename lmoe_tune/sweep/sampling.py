"""Optuna's samplers, pruners and distributions, as a spec names them."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lmoe_tune.data.splits import derived_seed
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import METHOD, Distribution, Spec

REDUCTION_FACTOR = 3
POPULATION = (
    12  # of NSGA-II: its own default of 50 would leave most sweeps in the first, random generation
)


def make_sampler(spec: Spec, number: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler for one trial, so that a suggestion is a pure function of (study, seed, number).

    The seed is a hash: with seed + number, the sweeps of seeds 1 and 2 would share their suggestions. Grid
    and quasi-random sequences need one seed for all trials.
    """
    name = spec.search.sampler
    of_trial = derived_seed("sampler", spec.search.seed, number) % 2**32
    of_sweep = derived_seed("sampler", spec.search.seed) % 2**32
    if name == "tpe":
        if METHOD not in spec.space:
            return optuna.samplers.TPESampler(seed=of_trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Each method's parameters are modelled on the trials that have them.
            return optuna.samplers.TPESampler(seed=of_trial, multivariate=True, group=True)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=of_trial)
    if name == "qmc":
        independent = optuna.samplers.RandomSampler(
            seed=of_trial
        )  # until a first trial is complete
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                seed=of_sweep,
                scramble=True,
                independent_sampler=independent,
                warn_independent_sampling=False,
            )
    if name == "grid":
        return optuna.samplers.RandomSampler(seed=of_sweep)  # never asked: `ask` gives the points
    if name == "cmaes":
        try:
            return optuna.samplers.CmaEsSampler(seed=of_trial, warn_independent_sampling=False)
        except ImportError as error:
            raise UsageError(
                "search.sampler: cmaes needs a package that is not installed: pip install 'lmoe-tune[cmaes]'"
            ) from error
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=of_trial, population_size=POPULATION)
    assert name == "gp", f"sampler {name} is not known here"
    return optuna.samplers.GPSampler(seed=of_trial)


def first_suggestions(spec: Spec, count: int) -> list[dict[str, Any]]:
    """The parameters of a sweep's first trials, as far as they do not depend on results."""
    study = optuna.create_study(directions=spec.objective.directions)
    for point in spec.search.start_from:
        study.enqueue_trial(dict(point))
    found = []
    for number in range(count):
        study.sampler = make_sampler(spec, number)
        found.append(dict(ask(study, spec).params))
    return found


def ask(study: optuna.Study, spec: Spec) -> optuna.Trial:
    """A new trial with a value for every parameter that it has: its method's, where the method is searched."""
    distributions = make_distributions(spec)
    if spec.search.sampler == "grid" and not study.get_trials(
        deepcopy=False, states=[optuna.trial.TrialState.WAITING]
    ):
        study.enqueue_trial(
            next_grid_point(spec, [trial.params for trial in study.get_trials(deepcopy=False)])
        )
    if METHOD not in spec.space:
        return study.ask(fixed_distributions=distributions)
    trial = study.ask()
    method = _suggest(trial, METHOD, distributions.pop(METHOD))
    for name, distribution in distributions.items():
        only_for = spec.space[name].only_for
        if only_for is None or method in only_for:
            _suggest(trial, name, distribution)
    return trial


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def make_pruner(spec: Spec) -> optuna.pruners.BasePruner:
    """The pruner, with its resources given in epochs: left to itself it would prune nothing at first."""
    name, epochs = spec.search.pruner, spec.train.epochs
    min_epochs = spec.search.min_epochs or max(1, round(epochs / 5))
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=min_epochs, reduction_factor=REDUCTION_FACTOR
        )
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=min_epochs, max_resource=epochs, reduction_factor=REDUCTION_FACTOR
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=min_epochs - 1)
    assert name == "none", f"pruner {name} is not known here"
    return optuna.pruners.NopPruner()


def make_distributions(spec: Spec) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    return {name: _distribution(entry) for name, entry in spec.space.items()}


def make_grid(spec: Spec) -> dict[str, list[Any]]:
    """Every value of every parameter, for a grid; the spec was checked to have steps or choices everywhere."""
    return {name: _grid_values(entry) for name, entry in make_distributions(spec).items()}


def next_grid_point(spec: Spec, tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first point of the shuffled grid that was not tried yet; the first of all where there is none left.

    Optuna's GridSampler goes by trial numbers: it would try a start point on the grid twice, and another never.
    """
    grid = make_grid(spec)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    random.Random(derived_seed("grid", spec.search.seed)).shuffle(points)
    return next((point for point in points if point not in tried), points[0])


def num_grid_trials(spec: Spec) -> int:
    """Trials after which a grid is covered: its points, and the start points that are not on it."""
    grid = make_grid(spec)
    off_grid = sum(
        any(point[name] not in grid[name] for name in grid) for point in spec.search.start_from
    )
    return math.prod(len(values) for values in grid.values()) + off_grid


def _distribution(entry: Distribution) -> BaseDistribution:
    if entry.choices is not None:
        return CategoricalDistribution(entry.choices)
    assert entry.low is not None and entry.high is not None, "a range without its ends"
    if entry.int_:
        step = 1 if entry.step is None else int(entry.step)
        return IntDistribution(int(entry.low), int(entry.high), log=entry.log, step=step)
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)


def _grid_values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert (
        isinstance(distribution, IntDistribution | FloatDistribution)
        and distribution.step is not None
    )
    count = round((distribution.high - distribution.low) / distribution.step)
    return [distribution.low + place * distribution.step for place in range(count + 1)]
