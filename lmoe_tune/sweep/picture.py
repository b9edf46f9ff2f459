"""The picture of a ledger that tracking projects: what `lmoe_tune.snapshot` describes, read when it
is asked for.

To show one more thing in MLflow: a field there, its value here, and where it goes in
`lmoe_tune.tracking`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, overload

from lmoe_tune.durable import read_object, read_text
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import BaselineSnapshot, DatasetRecord, ModelSource, SweepSnapshot
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.view import checkpoint_of
from lmoe_tune.training.baseline_record import read_baseline_record


class StartedTrials(Sequence[TrialRecord]):
    """The trials that have been started, by number; each is read from the ledger when it is asked
    for.

    Those that wait have the highest numbers, so the others follow each other without a gap.
    """

    def __init__(
        self, ledger: Ledger, shown_as: Callable[[TrialRecord], TrialRecord] = lambda trial: trial
    ) -> None:
        self._ledger = ledger
        self._shown_as = shown_as
        self._num_started = ledger.standing.counts.total()

    def __len__(self) -> int:
        return self._num_started

    @overload
    def __getitem__(self, number: int) -> TrialRecord: ...
    @overload
    def __getitem__(self, number: slice) -> list[TrialRecord]: ...
    def __getitem__(self, number: int | slice) -> TrialRecord | list[TrialRecord]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._num_started))]
        if number >= self._num_started:
            raise IndexError(number)

        return self._shown_as(self._ledger.trial(number))


def snapshot(ledger: Ledger, state: str) -> SweepSnapshot:
    """The picture of a ledger; for a confirmation's ledger, the picture of its jobs."""
    if ledger.has_jobs:
        return _of_confirmation(ledger, state)

    spec, best = ledger.spec, ledger.best()
    return SweepSnapshot(
        sweep=ledger.folder.name,
        sweep_id=ledger.sweep_id,
        experiment=spec.tracking.experiment or spec.name,
        state=state,  # type: ignore[arg-type]
        spec_yaml=read_text(ledger.folder.spec),
        trainable=spec.trainable,
        objective=spec.objective.metric,
        direction=spec.objective.direction,
        started_ms=ledger.created_ms,
        trials=StartedTrials(ledger),
        best=best.number if best else None,
        feasible=best is not None and best.violation == 0,
        baseline=baseline_snapshot(ledger),
        searched=tuple(spec.space),
        also=tuple(spec.objective.metrics[1:]),
        constrained=tuple(spec.objective.constraints),
        constants=_constants(ledger),
        datasets=_datasets(ledger),
        gpus=spec.resources.gpu,
    )


def models(ledger: Ledger) -> list[ModelSource]:
    """The last checkpoints of the best trials that are still there."""
    if ledger.has_jobs:
        return []  # its checkpoints are gone; the winner's weights are in the folder of its job

    best = ledger.standing.ranking.best(ledger.spec.tracking.best_checkpoints)
    paths = {number: checkpoint_of(ledger.folder, number) for number in best}
    return [ModelSource(number, path) for number, path in paths.items() if path is not None]


def baseline_snapshot(ledger: Ledger) -> BaselineSnapshot | None:
    """The training that the sweep's trials start from, once it has begun."""
    key = ledger.get(schema.BASELINE)
    record = key and read_baseline_record(ledger.folder.home, key)
    if not key or not record:
        return None

    epochs = tuple(
        EpochRecord(epoch["epoch"], epoch["metrics"], epoch["time_ms"])
        for epoch in record["epochs"]
    )
    return BaselineSnapshot(
        key=key,
        state=record["state"],
        params=record["params"],
        epochs=epochs,
        started_ms=record["started_ms"],
        ended_ms=epochs[-1].time_ms if epochs and record["state"] == "complete" else None,
    )


def _of_confirmation(ledger: Ledger, state: str) -> SweepSnapshot:
    """Its runs name the sweep, and carry no number of a trial of the sweep's."""
    spec, attrs = ledger.spec, ledger.attrs
    jobs = StartedTrials(ledger, lambda trial: replace(trial, params=_about_job(attrs, trial)))
    names = [name for number in range(len(jobs)) for name in jobs[number].params]
    verdict = {key: str(attrs[key]) for key in ("verdict", "verdict_sentence") if key in attrs}
    return SweepSnapshot(
        sweep=attrs["of_sweep"],
        sweep_id=attrs["of_sweep_id"],
        experiment=spec.tracking.experiment or spec.name,
        state=state,  # type: ignore[arg-type]
        spec_yaml=read_text(ledger.folder.spec),
        trainable=spec.trainable,
        objective=spec.objective.metric,
        direction=spec.objective.direction,
        started_ms=ledger.created_ms,
        trials=jobs,
        best=None,
        feasible=False,
        baseline=None,
        searched=tuple(dict.fromkeys(names)),
        kind="confirm",
        constants=_constants(ledger),
        gpus=spec.resources.gpu,
        tags={f"lmoe_tune.{key}": text for key, text in verdict.items()},
    )


def _constants(ledger: Ledger) -> dict[str, str]:
    """What all trials have in common, by the name of a tag."""
    spec, about = ledger.spec, read_object(ledger.folder.environment)
    train, data = spec.train, spec.data
    sets = [one for one in (data.outliers, *data.coarse_ood) if one is not None]
    found: dict[str, object] = {
        "trainable": spec.trainable,
        "arch": spec.model.arch,
        "weights": spec.model.weights,
        "data": data.id.dataset,
        "ood_data": ", ".join(dict.fromkeys(one.dataset for one in sets)),
        "fingerprint": ledger.attrs.get("fingerprint"),
        "split": data.split,
        "seed": spec.search.seed,
        "train_seed": train.seed,
        "epochs": train.epochs,
        "lr": train.lr,
        "batch_size": train.batch_size,
        "weight_decay": train.weight_decay,
        "precision": train.precision,
        "sampler": spec.search.sampler,
        "pruner": spec.search.pruner,
        "version": about.get("lmoe_tune"),
        "git_commit": about.get("git_commit"),
        "host": about.get("host"),
        "gpu": about.get("gpu"),
        **{name: (about.get("packages") or {}).get(name) for name in ("torch", "ray", "optuna")},
        **{f"fixed.{name}": value for name, value in spec.fixed.items()},
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _datasets(ledger: Ledger) -> tuple[DatasetRecord, ...]:
    data, about = ledger.spec.data, read_object(ledger.folder.environment).get("data") or {}
    counts, digest = about.get("images") or {}, about.get("fingerprint")
    if digest is None:
        return ()

    outliers = data.outliers or data.id
    coarse = data.coarse_ood[0] if data.coarse_ood else outliers
    parts = [
        (data.id, "train", "training"),
        (data.id, "val", "validation"),
        (data.id, "val_fine", "held-out classes"),
        (outliers, "outliers", "outliers"),
        (coarse, "val_coarse", "coarse"),
    ]
    return tuple(
        DatasetRecord(
            name=f"{one.dataset}/{part}",
            role=role,
            digest=str(digest),
            source=one.root or one.dataset,
            num_images=int(counts[part]),
        )
        for one, part, role in parts
        if counts.get(part)
    )


def _about_job(attrs: dict[str, Any], trial: TrialRecord) -> dict[str, Any]:
    candidate = attrs["candidates"][trial.params["candidate"]]
    chosen = {key: value for key, value in candidate["params"].items() if value is not None}
    return {
        "candidate": candidate["name"],
        "purpose": candidate["purpose"],
        "method": candidate["method"],
        "split": trial.params["split"],
        "seed": trial.params["seed"],
        **chosen,
    }
