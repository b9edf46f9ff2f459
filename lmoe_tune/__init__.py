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
    from lmoe_tune.api.exporting import Exported
    from lmoe_tune.api.loading import load_spec
    from lmoe_tune.api.one_trial import SingleTrial, train
    from lmoe_tune.api.running import search
    from lmoe_tune.api.sweeps import Sweep, compare, list_sweeps, open_sweep
    from lmoe_tune.confirmation.reseeding import Reseeding
    from lmoe_tune.confirmation.result import Confirmation
    from lmoe_tune.confirmation.running import confirm
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
    from lmoe_tune.records import EpochRecord, TrialRecord
    from lmoe_tune.report.comparison import Comparison
    from lmoe_tune.spec import Declaration, LoadedSpec, Parameter, Spec
    from lmoe_tune.sweep.folder import SweepLockedError
    from lmoe_tune.sweep.observer import Observer
    from trainables.method import Method

__version__ = "0.1.0"

_HOMES = {
    "BaselineError": "lmoe_tune.errors",
    "Declaration": "lmoe_tune.spec",
    "Detector": "lmoe_tune.detector.detector",
    "EpochRecord": "lmoe_tune.records",
    "Exported": "lmoe_tune.api.exporting",
    "LmoeTuneError": "lmoe_tune.errors",
    "LoadedSpec": "lmoe_tune.spec",
    "Method": "trainables.method",
    "Observer": "lmoe_tune.sweep.observer",
    "Parameter": "lmoe_tune.spec",
    "Prediction": "lmoe_tune.detector.detector",
    "Problem": "lmoe_tune.errors",
    "SingleTrial": "lmoe_tune.api.one_trial",
    "Spec": "lmoe_tune.spec",
    "SpecError": "lmoe_tune.errors",
    "StorageError": "lmoe_tune.errors",
    "Sweep": "lmoe_tune.api.sweeps",
    "SweepLockedError": "lmoe_tune.sweep.folder",
    "TrackingError": "lmoe_tune.errors",
    "TrainingError": "lmoe_tune.errors",
    "TrialRecord": "lmoe_tune.records",
    "UsageError": "lmoe_tune.errors",
    "Confirmation": "lmoe_tune.confirmation.result",
    "Reseeding": "lmoe_tune.confirmation.reseeding",
    "Comparison": "lmoe_tune.report.comparison",
    "compare": "lmoe_tune.api.sweeps",
    "list_sweeps": "lmoe_tune.api.sweeps",
    "confirm": "lmoe_tune.confirmation.running",
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
    "EpochRecord",
    "Exported",
    "LmoeTuneError",
    "LoadedSpec",
    "Method",
    "Observer",
    "Parameter",
    "Prediction",
    "Problem",
    "Reseeding",
    "SingleTrial",
    "Spec",
    "SpecError",
    "StorageError",
    "Sweep",
    "SweepLockedError",
    "TrackingError",
    "TrainingError",
    "TrialRecord",
    "UsageError",
    "__version__",
    "compare",
    "confirm",
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
