"""What a confirmation, or a reseeding before it, trains: the rows of its table, and the seeds and
splits of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.questions import free_seeds, take_seeds
from lmoe_tune.spec import (
    METHOD,
    SHARED_PARAMETERS,
    Distribution,
    ObjectiveSpec,
    SearchSpec,
    Spec,
    own_params,
)
from lmoe_tune.spec.model import Budget
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.folder import SweepFolder, find_sweeps
from lmoe_tune.sweep.view import read_spec, refuse_without_best
from lmoe_tune.wording import counted
from trainables import METHODS, configured, load_method

if TYPE_CHECKING:
    from lmoe_tune.records import TrialRecord
    from lmoe_tune.sweep.ledger import Ledger

Purpose = Literal["confirm", "reseed"]

FIRST_SEED = (
    1000  # far from seeds that people tune with; seeds that were used nevertheless are left out
)
MAX_CANDIDATES = 100_000
CONFIRM: Purpose = "confirm"
RESEED: Purpose = "reseed"
"""What is trained for: the sealed test, or a look at the validation images before it."""
SCORES, MODEL, DESCRIPTION = "test.npz", "model.pt", "model.json"
"""What a job keeps in its folder: of its test, of the winner's weights, and of what these need."""
RESEED_FILE = "reseed.json"
"""What a reseeding leaves for forecasts, in the confirmation's folder."""
RESAMPLED = "resampled_"
DIVERGED = "test_diverged"
"""A metric of trainings that diverged to non-finite numbers: 1. It is `val_diverged` in a
reseeding.
"""
VAL_DIVERGED = "val_diverged"


@dataclass(frozen=True)
class Candidate:
    """A configuration to train: a method, and a value for every one of its hyperparameters."""

    name: str
    method: str
    params: Mapping[str, Any]
    """None: as in `train`."""
    trial: int | None = None
    """The number of the search's trial that it is."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Candidate:
        return cls(record["name"], record["method"], dict(record["params"]), record["trial"])

    def as_record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "method": self.method,
            "params": dict(self.params),
            "trial": self.trial,
        }

    def is_same(self, record: Mapping[str, Any]) -> bool:
        """Whether a recorded candidate is the same configuration, whatever its name."""
        return bool(record["method"] == self.method and record["params"] == dict(self.params))


@dataclass(frozen=True)
class Plan:
    """The rows of a confirmation's table, the winner first, and what each is trained on."""

    top: tuple[Candidate, ...]
    own_defaults: Candidate
    """The winner's method, untuned: what the verdict compares it with."""
    others: tuple[Candidate, ...]
    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader of the result should know about the plan, a sentence each."""
    purpose: Purpose = CONFIRM

    @property
    def winner(self) -> Candidate:
        return self.top[0]

    @property
    def winner_is_default(self) -> bool:
        """Whether the winner has its method's defaults: then it has no gain."""
        return self.own_defaults.is_same(self.winner.as_record())

    @property
    def rows(self) -> tuple[Candidate, ...]:
        return (*self.top, self.own_defaults, *self.others)

    def cells(self) -> Iterator[tuple[int, int]]:
        """Every (split, seed)."""
        return itertools.product(self.splits, self.seeds)


def make_plan(
    ledger: Ledger,
    import_path: Path,
    *,
    top: int,
    num_seeds: int,
    splits: Sequence[int] | None = None,
) -> Plan:
    """The plan of a sweep's confirmation; nothing is recorded.

    Args:
        import_path: where the user's own trainables are.
        splits: other splits than the spec's.

    Raises:
        UsageError: the sweep has no complete trial, or its own classifier does not go with the
            splits.
    """
    spec = ledger.spec
    assert spec.train.seed is not None, "the platform is not resolved"
    best, notes = _best_or_refused(ledger, import_path, top)
    winner = next(trial for trial in ledger.trials() if trial.number == best[0].trial)
    if winner.violation > 0:
        notes.append("no trial meets the constraints: the winner is the one that misses them least")
    own = untuned(spec, best[0].method, import_path)
    names = [name for name in METHODS if name != best[0].method]
    if spec.data.outliers is None:
        without = [
            name for name in names if load_method(name, import_path).declaration.needs_outliers
        ]
        names = [name for name in names if name not in without]
        notes.append(f"{', '.join(without)}: left out, as the spec has no outliers to train with")
    others = tuple(untuned(spec, name, import_path) for name in names)
    if own.is_same(best[0].as_record()):
        notes.append(
            f"the winner, {best[0].name}, has its method's defaults: the search found nothing better"
        )
    if spec.warm_start:
        notes.append(
            f"the search started from the best points of {', '.join(spec.warm_start)}: the winner's "
            "tuning cost those sweeps' trials as well as its own"
        )
    asked = tuple(dict.fromkeys(splits or (spec.data.split,)))
    if set(asked) - {spec.data.split}:
        notes.append(
            f"the search saw images that are test images in other splits than {spec.data.split}: there the winner "
            "has an advantage that its comparators lack"
        )
    if not trains_held_out(spec):
        if set(asked) - {spec.data.split}:
            raise UsageError(
                f"splits: model.baseline.epochs is 0, so all rows start from {spec.model.weights}, which has learned "
                f"the classes of split {spec.data.split}: in other splits it would be tested on some of them as novel "
                "ones. Leave --splits out"
            )
        notes.append(
            f"all rows start from {spec.model.weights} (model.baseline.epochs is 0), so they are trained on the "
            "classes that it knows: those that the search held out are in no set, and a seed varies the "
            "fine-tuning only"
        )
    return Plan(
        top=tuple(best),
        own_defaults=own,
        others=others,
        splits=asked,
        seeds=fresh_seeds(ledger, CONFIRM, num_seeds),
        notes=tuple(notes),
    )


def with_taken_seeds(plan: Plan, ledger: Ledger) -> Plan:
    """The plan with seeds that no other confirmation of the home can take any more."""
    return replace(plan, seeds=fresh_seeds(ledger, plan.purpose, len(plan.seeds), takes=True))


def make_reseeding(ledger: Ledger, import_path: Path, *, top: int, num_seeds: int) -> Plan:
    """The plan of a look at the validation images before the test: the best trials, and the
    defaults of the first.

    Everything is as in the search but for the seeds.

    Raises:
        UsageError: the sweep has no complete trial.
    """
    best, notes = _best_or_refused(ledger, import_path, top)
    return Plan(
        top=tuple(best),
        own_defaults=untuned(ledger.spec, best[0].method, import_path),
        others=(),
        splits=(ledger.spec.data.split,),
        seeds=fresh_seeds(ledger, RESEED, num_seeds),
        notes=tuple(notes),
        purpose=RESEED,
    )


def _best_or_refused(
    ledger: Ledger, import_path: Path, top: int
) -> tuple[list[Candidate], list[str]]:
    """The best trials by validation, without repetitions of the same parameters, and what to say if
    there are fewer than were asked for.
    """
    best: list[Candidate] = []
    for trial in ledger.ranked():
        candidate = candidate_of(ledger.spec, trial, import_path)
        if len(best) < top and not any(candidate.is_same(other.as_record()) for other in best):
            best.append(candidate)
    if not best:
        refuse_without_best(ledger)
    if len(best) == top:
        return best, []

    trials = counted(len(best), "complete trial")
    note = (
        f"the sweep has {trials} with different parameters, fewer than --top {top}: all are taken"
    )
    return best, [note]


def trains_held_out(spec: Spec) -> bool:
    """Whether a confirmation trains on the classes that the search held out: not where the user's
    classifier, which knows none of them, is the baseline itself."""
    return spec.model.baseline.epochs > 0


def candidate_of(spec: Spec, trial: TrialRecord, import_path: Path) -> Candidate:
    """The configuration of a trial."""
    _, params = configured(spec, trial.params, import_path)
    method = str(trial.params.get(METHOD, spec.trainable))
    return Candidate(f"trial {trial.number}", method, params, trial.number)


def untuned(spec: Spec, method: str, import_path: Path) -> Candidate:
    """A method at its defaults.

    What the spec holds fixed stays fixed for the sweep's own methods: nobody tuned it. For others
    it fixes only what belongs to no method, such as the learning rate.
    """
    declaration = load_method(method, import_path).declaration
    if METHOD in spec.space:
        fixed = own_params(spec.fixed, method, declaration)
    elif method == spec.trainable:
        fixed = dict(spec.fixed)
    else:
        shared = {parameter.name for parameter in SHARED_PARAMETERS}
        fixed = {name: value for name, value in spec.fixed.items() if name in shared}
    return Candidate(f"{method} untuned", method, declaration.resolve(fixed))


def trial_at_defaults(ledger: Ledger, method: str, import_path: Path) -> int | None:
    """The number of the complete trial that was an untuned method; None if there is none."""
    record = untuned(ledger.spec, method, import_path).as_record()
    for trial in ledger.ranked():
        if candidate_of(ledger.spec, trial, import_path).is_same(record):
            return trial.number

    return None


def has_defaults(ledger: Ledger, trial: TrialRecord) -> bool:
    """Whether a trial of the sweep was an untuned method."""
    where = ledger.get(schema.IMPORT_PATH) or "."
    found = candidate_of(ledger.spec, trial, Path(where))
    return found.is_same(untuned(ledger.spec, found.method, Path(where)).as_record())


def fresh_seeds(
    ledger: Ledger, purpose: Purpose, count: int, *, takes: bool = False
) -> tuple[int, ...]:
    """Seeds that nothing in this home was trained with; the first of more are those of fewer.

    Args:
        purpose: CONFIRM or RESEED, whose seeds differ.
        takes: whether the home records that they are used now; else it is only a plan.
    """
    home = ledger.folder.home
    avoid = {seed for seed in map(_train_seed, find_sweeps(home)) if seed is not None}
    choose = take_seeds if takes else free_seeds
    return choose(home, ledger.sweep_id, purpose, count, first=FIRST_SEED, avoid=avoid)


def _train_seed(folder: SweepFolder) -> int | None:
    """What a sweep trains its trials with; None if its spec cannot be read."""
    try:
        return read_spec(folder).train.seed
    except (LmoeTuneError, OSError):
        return None


def spec_of(spec: Spec) -> Spec:
    """The spec of a sweep's confirmation: as the sweep's, with jobs in the place of parameters."""
    whole = {"low": 0, "int": True}
    space = {
        "candidate": Distribution.model_validate(whole | {"high": MAX_CANDIDATES}),
        "split": Distribution.model_validate(whole | {"high": 2**31 - 1}),
        "seed": Distribution.model_validate(whole | {"high": 2**32 - 1}),
    }
    changed = {
        "fixed": {},
        "space": space,
        # All that a trial without novelty of its own has; nothing is chosen by it.
        "objective": ObjectiveSpec(
            metric="val_accuracy", constraints={}, score=spec.objective.score
        ),
        "search": SearchSpec(
            sampler="random",
            pruner="none",
            seed=spec.search.seed,
            max_concurrent=spec.search.max_concurrent,
        ),
        "warm_start": (),
        "budget": Budget(trials=1),
    }
    return spec.model_copy(update=changed)
