"""The winner of a sweep as a detector, and in MLflow's model registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.errors import TrackingError
from lmoe_tune.export import Winner, winner_of, write_detector
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.tracked import address


@dataclass(frozen=True)
class Exported:
    """A detector that was written; `load_detector(exported.folder)` opens it."""

    folder: Path
    document: Mapping[str, Any]
    """Its `detector.json`."""
    trial: int
    method: str
    verdict: str | None
    """What a confirmation said about it; None if there was none."""
    registered: Mapping[str, Any] | None
    """`name` and `version` in MLflow's model registry, if it was registered."""


def export(
    ledger: Ledger, out: Path, *, trial: int | None, onnx: bool, register: str | None
) -> Exported:
    """See `Sweep.export`."""
    winner, of_trial = winner_of(ledger, trial), None
    if register is not None:  # refused before anything is written
        of_trial = view.tracking_of(ledger).run_of(winner.trial)

    document = write_detector(ledger, winner, out, onnx=onnx)
    verdict = winner.confirmed["verdict"] if winner.confirmed else None
    registered = None
    if register is not None and of_trial is not None:
        registered = _registered(ledger, winner, out, register, verdict, *of_trial)
    return Exported(out, document, winner.trial, winner.method, verdict, registered)


def _registered(
    ledger: Ledger,
    winner: Winner,
    out: Path,
    model_name: str,
    verdict: str | None,
    experiment_id: str,
    run_id: str,
) -> dict[str, Any]:
    from lmoe_tune.tracking.uploads import register_detector

    folder = ledger.folder
    try:
        return register_detector(
            address(folder, ledger.spec),
            out,
            model_name=model_name,
            experiment_id=experiment_id,
            run_id=run_id,
            trial=winner.trial,
            artifact_root=folder.home / "mlartifacts",
            verdict=verdict,
        )
    except TrackingError as error:
        raise type(error)(
            f"{error}; the detector itself is in {out}, but is not registered"
        ) from error
