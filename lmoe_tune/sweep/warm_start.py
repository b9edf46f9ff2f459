"""A sweep that starts from the best points of other sweeps of its home (`warm_start` of the spec).

They are read once, when the sweep starts, and become points of its own frozen `search.start_from`,
after those that the spec names; where each comes from is recorded in the ledger. So a resume adds
nothing, `audit` computes everything again, and the other sweeps may continue, move or be deleted.
Only what a search saw on its validation images is read: nothing of a confirmation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.data.overlap import validated_there_sealed_here
from lmoe_tune.errors import UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import METHOD, DataSpec, Spec, own_params
from lmoe_tune.spec.parameters import outside
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.audit import digest
from lmoe_tune.sweep.folder import SweepFolder, find_sweep
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.points import names_for
from lmoe_tune.sweep.view import read_sweep
from lmoe_tune.wording import counted
from trainables import Method, configured

NUM_BEST = 3  # of each sweep: the next ones are mostly neighbours of these

Point = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """A point that is taken: the trial that it was, and the number under which it is tried here."""

    trial: int
    value: float | None
    tried_as: int


@dataclass(frozen=True)
class Source:
    """What is taken from another sweep, and what is not."""

    sweep: str
    sweep_id: str
    digest: str
    """Of the sweep as it was read, as `audit` prints it."""
    metric: str
    """What its trials are ranked by."""
    origins: tuple[Origin, ...]
    notes: tuple[str, ...]
    """What cannot be used, or means something else here; a sentence each."""
    seen: tuple[Mapping[str, Any], ...]
    """The section `data` of that sweep, and of those that it started from itself."""

    def as_record(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        return vars(self) | {"origins": [vars(origin) for origin in self.origins]}


def in_words(sources: Sequence[Source]) -> Iterator[str]:
    """What is taken of other sweeps, and what is not; a line each."""
    for source in sources:
        taken = [
            f"its trial {one.trial} ({source.metric} {_short(one.value)}) as {one.tried_as}"
            for one in source.origins
        ]
        for text in (", ".join(taken) or "nothing can be used", *source.notes):
            yield f"warm start from '{source.sweep}': {text}"


class _Unusable(Exception):
    """A trial of another sweep is not a point of this space; says why."""


def warm_started(spec: Spec, home: Path) -> tuple[Spec, list[Source]]:
    """The spec with the best points of the sweeps that it names after its own, and what they are.

    Raises:
        UsageError: there is no such sweep, or it was tuned on images that are sealed here.
        LedgerError: its records are damaged.
    """
    folders, unknown = [], []
    for name in spec.warm_start:
        try:
            folders.append(find_sweep(home, name))
        except UsageError as error:
            unknown.append(str(error))
    if unknown:
        raise UsageError("\n".join(unknown))

    points = [dict(point) for point in spec.search.start_from]
    sources = [_source(spec, read_sweep(folder), points) for folder in folders]
    search = spec.search.model_copy(update={"start_from": tuple(points)})
    return spec.model_copy(update={"search": search}), sources


def would_take(spec: Spec, folder: SweepFolder) -> list[Source]:
    """What a sweep takes of others; one that is there, from the same others, has taken it."""
    if spec.warm_start and folder.exists():
        ledger = read_sweep(folder)
        if ledger.spec.warm_start == spec.warm_start:
            return sources_of(ledger)

    return warm_started(spec, folder.home)[1]


def sources_of(ledger: Ledger) -> list[Source]:
    """What a sweep took of others when it was started."""
    return list(map(_recorded, ledger.get(schema.WARM_START) or ()))


def _recorded(found: dict[str, Any]) -> Source:
    origins = tuple(Origin(**one) for one in found["origins"])
    return Source(**(found | {"origins": origins}))


def _source(spec: Spec, ledger: Ledger, points: list[Point]) -> Source:
    """What is taken of a sweep; its points are added to those before."""
    there = ledger.spec
    seen: list[Mapping[str, Any]] = [there.data.model_dump(mode="json")]
    seen += [data for source in sources_of(ledger) for data in source.seen]
    _refuse_sealed(spec, ledger, seen)

    origins: list[Origin] = []
    notes = list(_first_notes(spec, ledger))
    for trial in ledger.ranked():
        if len(origins) == NUM_BEST or trial.violation > 0:
            break  # the feasible ones are ranked first
        try:
            point, changed = _point(spec, ledger, trial)
        except (_Unusable, UsageError) as error:
            notes.append(f"its trial {trial.number} is left out: {error}")
            continue

        if point in points:
            notes.append(f"its trial {trial.number} is among the points before it")
            continue
        if changed:
            notes.append(f"its trial {trial.number} had {changed}")
        origins.append(Origin(trial.number, trial.value, len(points)))
        points.append(point)

    return Source(
        sweep=ledger.folder.name,
        sweep_id=ledger.sweep_id,
        digest=digest(ledger),
        metric=there.objective.metric,
        origins=tuple(origins),
        notes=tuple(notes),
        seen=tuple(seen),
    )


def _refuse_sealed(spec: Spec, ledger: Ledger, seen: Sequence[Mapping[str, Any]]) -> None:
    """Raises UsageError if what the points were chosen by is test images of this sweep."""
    name, home = ledger.folder.name, ledger.folder.home
    for plain in seen:
        data = DataSpec.model_validate_json(json.dumps(plain))
        try:
            num_images = validated_there_sealed_here(data, spec.data, home)
        except UsageError as error:
            raise UsageError(
                f"warm_start: whether '{name}' was tuned on test images of this sweep cannot be "
                f"checked, as data cannot be read ({error}); restore them, or leave '{name}' out"
            ) from error
        if num_images:
            raise UsageError(
                f"warm_start: '{name}' was tuned on {counted(num_images, 'image')} that are sealed "
                "test images of this sweep, so its points would carry the test into the search; "
                f"leave it out, or search its own split (data.split {data.split})"
            )


def _first_notes(spec: Spec, ledger: Ledger) -> Iterator[str]:
    there, here = ledger.spec.objective, spec.objective
    if (there.metric, there.direction) != (here.metric, here.direction):
        yield f"its trials are ranked by {there.metric}, not {here.metric}"
    if not ledger.standing.counts["complete"]:
        yield "it has no complete trial"
    elif (best := ledger.best()) is not None and best.violation > 0:
        yield "none of its trials meets its constraints"


def _point(spec: Spec, ledger: Ledger, trial: TrialRecord) -> tuple[Point, str]:
    """A trial's configuration in this space, and what of it is something else here.

    Values that were fixed there, or left at their defaults, count like those that were searched.
    """
    folder = Path(ledger.attrs.get("import_path", ledger.folder.home))
    name = str(trial.params.get(METHOD, ledger.spec.trainable))
    choices: tuple[str, ...] = (spec.trainable,)
    if METHOD in spec.space:
        choices = tuple(map(str, spec.space[METHOD].choices or ()))
    if name not in choices:
        raise _Unusable(f"its method is {name}, but must be {' or '.join(choices)}")

    method, params = configured(ledger.spec, trial.params, folder)
    found = _of_training(params, ledger.spec)
    point: Point = {}
    if METHOD in spec.space:
        point[METHOD] = name
    for searched in names_for(spec, name):
        point[searched] = _value(spec, searched, found, name)

    here = _resolved(spec, point, name, method)
    changed = [
        f"{own} {_short(value)}, which is {_short(here[own])} here"
        for own, value in found.items()
        if own in here and here[own] != value
    ]
    return point, " and ".join(changed)


def _value(spec: Spec, searched: str, found: Mapping[str, Any], method: str) -> Any:
    """The value of a searched parameter. Raises _Unusable if the space does not have it."""
    own = searched.removeprefix(f"{method}.")
    if own not in found:
        raise _Unusable(f"it has no {own}")

    entry = spec.space[searched].model_dump()
    expected = outside(found[own], {"step": None} | entry, None)
    if expected is not None:
        raise _Unusable(f"{searched} is {_short(found[own])}, but must be {expected}")
    return found[own]


def _resolved(spec: Spec, point: Mapping[str, Any], name: str, method: Method) -> dict[str, Any]:
    """All parameters of a trial of this sweep at this point."""
    given = {**spec.fixed, **point}
    given.pop(METHOD, None)
    own = own_params(given, name, method.declaration)
    return _of_training(method.declaration.resolve(own), spec)


def _of_training(params: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The parameters with None replaced by what it means: as in `train`."""
    train = spec.train.model_dump()
    return {name: train.get(name) if value is None else value for name, value in params.items()}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
