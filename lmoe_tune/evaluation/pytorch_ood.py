"""The logits detectors of pytorch-ood (Kirchheim et al., 2022) as scores:
`pip install 'lmoe-tune[pytorch-ood]'`.

Detectors that work on features, gradients or several layers need more than the logits kept here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from lmoe_tune import advice
from lmoe_tune.errors import UsageError


def detector_score(
    name: str, logits: Tensor | None = None, labels: Tensor | None = None, **settings: Any
) -> Callable[[Tensor], Tensor]:
    """A score, higher for in-distribution, to hand to `score`, `test_metrics` and the like.

    Args:
        name: a detector of `pytorch_ood.detector`: EnergyBased, Entropy, GEN, KLMatching, MaxLogit,
            MaxSoftmax, TemperatureScaling, ...
        logits: (N, K) of in-distribution images that were not trained on, for detectors that are
            fitted.
        labels: (N,) of the same images.
        settings: the detector's own, such as `gamma` of GEN.

    Raises:
        UsageError: pytorch-ood is not installed, has no such detector of logits, or the detector
            needs fitting.
    """
    detectors = _detectors()
    if name not in detectors:
        raise UsageError(
            f"pytorch-ood has no logits detector '{name}'; there are {', '.join(sorted(detectors))}"
        )
    detector = detectors[name](None, **settings)
    if detector.requires_fit:
        if logits is None or labels is None:
            raise UsageError(f"{name} must be fitted: give it in-distribution logits and labels")
        detector.fit_logits(logits.double(), labels)

    def confidence(of: Tensor) -> Tensor:
        scores: Tensor = -detector.predict_logits(
            of.double()
        ).detach()  # in pytorch-ood, higher is out-of-distribution
        return scores

    return confidence


def _detectors() -> dict[str, Any]:
    try:
        from pytorch_ood import api, detector
    except ImportError as error:
        raise UsageError(
            f"pytorch-ood is not installed ({error}); {advice.setup('pytorch-ood')}"
        ) from error
    found = {name: getattr(detector, name) for name in detector.__all__}
    return {
        name: of
        for name, of in found.items()
        if inspect.isclass(of) and issubclass(of, api.LogitsDetector) and _needs_only_logits(of)
    }


def _needs_only_logits(of: Any) -> bool:
    """Whether the detector can be made with settings that all have defaults."""
    parameters = list(inspect.signature(of.__init__).parameters.values())[2:]  # self and the model
    return all(parameter.default is not parameter.empty for parameter in parameters)
