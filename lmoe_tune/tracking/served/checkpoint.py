"""A trained classifier as MLflow runs it. MLflow copies this file into every logged model and executes it.

It imports torch and what computes the scores, the same as for exported detectors, no sooner than the model is
loaded: logging a model executes this file too, and must not cost the import of torch.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from mlflow.pyfunc import PythonModelContext  # type: ignore[attr-defined]


class Detector(PythonModel):
    """Predicts for each image its class, and a score that is higher for in-distribution images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the model and load the checkpoint's weights. It runs where exported detectors do: see `device_of`."""
        import torch

        from lmoe_tune.detector.folder import device_of
        from lmoe_tune.detector.network import Network
        from lmoe_tune.model import build_model

        saved = torch.load(context.artifacts["checkpoint"], map_location="cpu", weights_only=True)
        describes: dict[str, Any] = saved["describes"]
        self.classes = np.asarray(describes["classes"])
        self.in_channels = int(describes["in_channels"])
        self.height, self.width = (int(side) for side in describes["image_size"])
        self.score = describes["score"]
        self.device = device_of(None)
        model = build_model(
            describes["arch"], int(describes["num_classes"]), self.in_channels, self.height
        )
        model.load_state_dict(saved["model"])
        self.network = Network(model, describes["mean"], describes["std"]).to(self.device)

    # MLflow reads the annotation of `model_input`: any but this one or none at all makes it warn or validate.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classes and scores, one row per image.

        Args:
            context: not used; `load_context` has read it.
            model_input: raw pixel values, as an array (N, C, H, W) or, of one channel, (N, H, W), or as a
                DataFrame whose rows are flattened images.
            params: `score` is msp, max_logit or energy; the one that the search went by is the default.

        Returns:
            A DataFrame with the columns `class` and `score` (higher = more in-distribution).

        Raises:
            ValueError: another shape, or another score.
        """
        from lmoe_tune.detector.scoring import score_pixels

        images_NCHW = self._as_images(model_input)
        score = (params or {}).get("score") or self.score
        if score not in ("msp", "max_logit", "energy"):
            raise ValueError(f"score is '{score}', but must be msp, max_logit or energy")
        found = score_pixels(self.network, images_NCHW, score, self.device)
        return pd.DataFrame(
            {"class": self.classes[found.predicted.numpy()], "score": found.scores.numpy()}
        )

    def _as_images(self, model_input: Any) -> np.ndarray[Any, Any]:
        array = np.asarray(model_input)
        shape = (self.in_channels, self.height, self.width)
        accepted: list[tuple[int, ...]]
        if isinstance(model_input, pd.DataFrame):
            accepted = [(self.in_channels * self.height * self.width,)]
        else:
            accepted = [shape, shape[1:]] if self.in_channels == 1 else [shape]
        if array.shape[1:] not in accepted:
            raise ValueError(
                f"the input has the shape {array.shape}, but must be"
                f" {' or '.join(f'(N, {str(one)[1:]}' for one in accepted)}"
            )
        return np.ascontiguousarray(array.reshape(len(array), *shape), dtype=np.float32)


set_model(Detector())
