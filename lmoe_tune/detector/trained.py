"""A trial's checkpoint as a detector: what MLflow serves for a model that a search has logged."""

from __future__ import annotations

from pathlib import Path

import torch

from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.detector.detector import Detector, device_of
from lmoe_tune.detector.network import Network


def load_trained(path: Path | str, device: str | None = None) -> Detector:
    """The model of a checkpoint; without a threshold, as none has been measured.

    Args:
        device: see `load_detector`.

    Raises:
        UsageError: it does not say how images become the network's input.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)
    fix = "train the trial again, and log the model of that"
    describes = ModelDescription.of_record(saved.get(KEY), whose=str(path), fix=fix)
    where = device_of(device)

    return Detector(
        classes=describes.classes,
        score=describes.score,
        threshold=None,
        preprocessing=describes.preprocessing,
        network=Network(describes.build(saved["model"]), describes.preprocessing).to(where),
        device=where,
        about={},
    )
