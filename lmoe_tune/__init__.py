"""Hyperparameter search for out-of-distribution detection with Logit Mixture Outlier Exposure.

    import lmoe_tune as lt

    spec = lt.load_spec("digits", ["train.epochs=5"])
    sweep = lt.search(spec, home="lmoe_runs", trials=16)
    print(sweep.state, sweep.best.params)
    sweep.to_frame().sort_values("value")

What is offered here is imported where it is first used, so that `import lmoe_tune` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmoe_tune.api.data import build_data, inspect_data
    from lmoe_tune.api.dry_run import DryRun, dry_run
    from lmoe_tune.api.loading import load_spec
    from lmoe_tune.api.one_trial import SingleTrial, train
    from lmoe_tune.api.running import search
    from lmoe_tune.api.sweeps import Sweep, compare, list_sweeps, open_sweep
    from lmoe_tune.confirmation.forecast import Forecast
    from lmoe_tune.confirmation.reseeding import Reseeding
    from lmoe_tune.confirmation.result import Confirmation
    from lmoe_tune.confirmation.running import InterruptedConfirmation, confirm, forecast
    from lmoe_tune.data.inspection import Inspection
    from lmoe_tune.detector.detector import Detector, Prediction
    from lmoe_tune.detector.folder import load_detector
    from lmoe_tune.errors import (
        BaselineError,
        LmoeTuneError,
        Problem,
        SpecError,
        StorageError,
        TrackingError,
        TrainingError,
        UsageError,
    )
    from lmoe_tune.export import Exported
    from lmoe_tune.records import EpochRecord, TrialRecord
    from lmoe_tune.report.comparison import Comparison
    from lmoe_tune.spec import Declaration, LoadedSpec, Parameter, Range, Spec, Term
    from lmoe_tune.sweep.folder import SweepLockedError
    from lmoe_tune.sweep.lines import LedgerError
    from lmoe_tune.sweep.observer import Observer
    from trainables.method import Method

__version__ = "0.1.0"

_HOMES = {
    "BaselineError": "lmoe_tune.errors",
    "Comparison": "lmoe_tune.report.comparison",
    "Confirmation": "lmoe_tune.confirmation.result",
    "Declaration": "lmoe_tune.spec",
    "Detector": "lmoe_tune.detector.detector",
    "DryRun": "lmoe_tune.api.dry_run",
    "EpochRecord": "lmoe_tune.records",
    "Exported": "lmoe_tune.export",
    "Forecast": "lmoe_tune.confirmation.forecast",
    "Inspection": "lmoe_tune.data.inspection",
    "InterruptedConfirmation": "lmoe_tune.confirmation.running",
    "LedgerError": "lmoe_tune.sweep.lines",
    "LmoeTuneError": "lmoe_tune.errors",
    "LoadedSpec": "lmoe_tune.spec",
    "Method": "trainables.method",
    "Observer": "lmoe_tune.sweep.observer",
    "Parameter": "lmoe_tune.spec",
    "Prediction": "lmoe_tune.detector.detector",
    "Problem": "lmoe_tune.errors",
    "Range": "lmoe_tune.spec",
    "Reseeding": "lmoe_tune.confirmation.reseeding",
    "SingleTrial": "lmoe_tune.api.one_trial",
    "Spec": "lmoe_tune.spec",
    "SpecError": "lmoe_tune.errors",
    "StorageError": "lmoe_tune.errors",
    "Sweep": "lmoe_tune.api.sweeps",
    "SweepLockedError": "lmoe_tune.sweep.folder",
    "Term": "lmoe_tune.spec",
    "TrackingError": "lmoe_tune.errors",
    "TrainingError": "lmoe_tune.errors",
    "TrialRecord": "lmoe_tune.records",
    "UsageError": "lmoe_tune.errors",
    "build_data": "lmoe_tune.api.data",
    "compare": "lmoe_tune.api.sweeps",
    "confirm": "lmoe_tune.confirmation.running",
    "dry_run": "lmoe_tune.api.dry_run",
    "forecast": "lmoe_tune.confirmation.running",
    "inspect_data": "lmoe_tune.api.data",
    "list_sweeps": "lmoe_tune.api.sweeps",
    "load_detector": "lmoe_tune.detector.folder",
    "load_spec": "lmoe_tune.api.loading",
    "open_sweep": "lmoe_tune.api.sweeps",
    "search": "lmoe_tune.api.running",
    "train": "lmoe_tune.api.one_trial",
}

__all__ = [
    "BaselineError",
    "Comparison",
    "Confirmation",
    "Declaration",
    "Detector",
    "DryRun",
    "EpochRecord",
    "Exported",
    "Forecast",
    "Inspection",
    "InterruptedConfirmation",
    "LedgerError",
    "LmoeTuneError",
    "LoadedSpec",
    "Method",
    "Observer",
    "Parameter",
    "Prediction",
    "Problem",
    "Range",
    "Reseeding",
    "SingleTrial",
    "Spec",
    "SpecError",
    "StorageError",
    "Sweep",
    "SweepLockedError",
    "Term",
    "TrackingError",
    "TrainingError",
    "TrialRecord",
    "UsageError",
    "__version__",
    "build_data",
    "compare",
    "confirm",
    "dry_run",
    "forecast",
    "inspect_data",
    "list_sweeps",
    "load_detector",
    "load_spec",
    "open_sweep",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmoe_tune' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
