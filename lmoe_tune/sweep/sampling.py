"""Optuna's samplers and distributions, as a spec names them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import FrozenTrial

from lmoe_tune import advice
from lmoe_tune.data.splits import derived_seed
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import METHOD, Distribution, Spec
from lmoe_tune.sweep.points import Tried, names_for
from lmoe_tune.sweep.remarks import POPULATION

optuna.logging.set_verbosity(optuna.logging.WARNING)

MAX_TRIES = 20  # suggestions that were tried before, until any untried point is taken


class Suggestions:
    """What a sweep tries next: a fresh sampler for each trial, over what is kept from one to the
    next.

    So a suggestion is a pure function of (study, seed, number), and a resume continues as if
    nothing had happened.
    """

    def __init__(self, spec: Spec, tried: Tried, space: Mapping[str, str] | None = None) -> None:
        """`Standing` keeps these two.

        Args:
            tried: the points of the space's finite part that were tried.
            space: what all complete and pruned trials have in common, each in Optuna's JSON; None:
                look at all of them each time.
        """
        self._spec = spec
        self._tried = tried
        self._distributions = make_distributions(spec)
        self._space = space

    def ask(self, study: optuna.Study, number: int) -> optuna.Trial:
        """A new trial with a value for every parameter that it has: its method's, where the method
        is searched.
        """
        idle, study.sampler = study.sampler, self._sampler(number)
        try:
            return self._suggested(study)
        finally:
            study.sampler = idle

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        space = None
        if self._space is not None:
            space = {name: _read_distribution(text) for name, text in self._space.items()}
        sampler = make_sampler(self._spec, number, space)
        if not self._tried.points.size:
            return sampler
        tries = 0 if self._spec.search.sampler == "grid" else MAX_TRIES
        return UntriedSampler(sampler, self._spec, self._distributions, self._tried, tries)

    def _suggested(self, study: optuna.Study) -> optuna.Trial:
        if METHOD not in self._spec.space:
            return study.ask(fixed_distributions=self._distributions)
        trial = study.ask()
        method = _suggest(trial, METHOD, self._distributions[METHOD])
        for name in names_for(self._spec, method):
            _suggest(trial, name, self._distributions[name])
        return trial


class KeptSpaceSampler(optuna.samplers.TPESampler):
    """TPE over a search space that is kept from one trial's sampler to the next: it need not read
    all trials.
    """

    kept: Mapping[str, BaseDistribution] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self.kept is None or len(study.directions) > 1:
            return super().infer_relative_search_space(study, trial)
        return {name: kind for name, kind in sorted(self.kept.items()) if not kind.single()}


class UntriedSampler(optuna.samplers.BaseSampler):
    """What another sampler suggests, unless that was tried: then what it suggests next, at last any
    untried point, or of a method that always has one.
    """

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        spec: Spec,
        distributions: Mapping[str, BaseDistribution],
        tried: Tried,
        tries: int,
    ) -> None:
        self._sampler = sampler
        self._spec = spec
        self._distributions = dict(distributions)
        self._tried = tried
        self._tries = tries
        self._relative: dict[str, BaseDistribution] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._relative = self._sampler.infer_relative_search_space(study, trial)
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        given = trial.system_attrs.get("fixed_params", {})
        for _ in range(self._tries):
            point = self._drawn(study, trial, given)
            if point not in self._tried:
                return point
        found = self._tried.next()
        if found is not None:
            return found

        endless = self._tried.points.endless
        if endless:
            given = {METHOD: endless[trial.number % len(endless)]} | given
        return self._drawn(study, trial, given)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def _drawn(
        self, study: optuna.Study, trial: FrozenTrial, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A whole point, drawn in the order in which a trial would ask for its parameters."""
        relative = self._sampler.sample_relative(study, trial, self._relative)

        def value(name: str) -> Any:
            entry = self._distributions[name]
            if name in given:
                return given[name]
            if name in relative:
                return relative[name]
            if entry.single():
                return _only(entry)
            return self._sampler.sample_independent(study, trial, name, entry)

        if METHOD not in self._spec.space:
            return {name: value(name) for name in self._distributions}
        method = value(METHOD)
        return {METHOD: method} | {name: value(name) for name in names_for(self._spec, method)}


def _only(entry: BaseDistribution) -> Any:
    """The one value of a distribution."""
    if isinstance(entry, CategoricalDistribution):
        return entry.choices[0]
    assert isinstance(entry, IntDistribution | FloatDistribution)
    return entry.low


def make_sampler(
    spec: Spec, number: int, space: Mapping[str, BaseDistribution] | None = None
) -> optuna.samplers.BaseSampler:
    """A fresh sampler for one trial.

    The seed is a hash: with seed + number, the sweeps of seeds 1 and 2 would share their
    suggestions. Grid and quasi-random sequences need one seed for all trials.

    Args:
        space: what all complete and pruned trials have in common; None: look at all of them.
    """
    name = spec.search.sampler
    # Points of another sweep with this seed would be drawn once more.
    after = ("after", *spec.warm_start) if spec.warm_start else ()
    of_trial = derived_seed("sampler", spec.search.seed, number, *after) % 2**32
    of_sweep = derived_seed("sampler", spec.search.seed) % 2**32
    if name == "tpe":
        if METHOD not in spec.space:
            sampler = KeptSpaceSampler(seed=of_trial)
            sampler.kept = space
            return sampler
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
        return optuna.samplers.RandomSampler(seed=of_sweep)  # for what a start point leaves out
    if name == "cmaes":
        try:
            return optuna.samplers.CmaEsSampler(seed=of_trial, warn_independent_sampling=False)
        except ImportError as error:
            raise UsageError(
                f"search.sampler: cmaes needs a package that is not installed: {advice.setup('cmaes')}"
            ) from error
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=of_trial, population_size=POPULATION)
    assert name == "gp", f"sampler {name} is not known here"
    return optuna.samplers.GPSampler(seed=of_trial)


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


_read_distribution = lru_cache(maxsize=1024)(json_to_distribution)


def make_distributions(spec: Spec) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    return {name: _distribution(entry) for name, entry in spec.space.items()}


def _distribution(entry: Distribution) -> BaseDistribution:
    if entry.choices is not None:
        return CategoricalDistribution(entry.choices)
    assert entry.low is not None and entry.high is not None, "a range without its ends"
    if entry.int_:
        step = 1 if entry.step is None else int(entry.step)
        return IntDistribution(int(entry.low), int(entry.high), log=entry.log, step=step)
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
