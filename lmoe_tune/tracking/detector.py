"""A trained classifier as MLflow runs it. MLflow copies this file into every logged model and executes it.

It runs wherever the model is loaded, so it needs torch and `lmoe_tune.model` only, and imports both no sooner
than the model is loaded: logging a model executes this file too, and must not cost the import of torch.

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
    from torch import Tensor

_BATCH_SIZE = 256  # images at a time: bounds the memory, whatever the caller hands over


class Detector(PythonModel):
    """Predicts for each image its class, and a score that is higher for in-distribution images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the model and load the checkpoint's weights, on the GPU where there is one."""
        import torch

        from lmoe_tune.model import build_model

        saved = torch.load(context.artifacts["checkpoint"], map_location="cpu", weights_only=True)
        describes: dict[str, Any] = saved["describes"]
        self.classes = np.asarray(describes["classes"])
        self.in_channels = int(describes["in_channels"])
        size = describes["image_size"]
        self.height, self.width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.scale = float(describes.get("scale", 1.0))
        self.mean_C11 = torch.tensor(describes["mean"], dtype=torch.float32).view(-1, 1, 1).to(self.device)
        self.std_C11 = torch.tensor(describes["std"], dtype=torch.float32).view(-1, 1, 1).to(self.device)
        self.model = build_model(describes["arch"], int(describes["num_classes"]), self.in_channels, self.height)
        self.model.load_state_dict(saved["model"])
        self.model.eval().to(self.device)

    # MLflow reads the annotation of `model_input`: any but this one or none at all makes it warn or validate.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classes and scores, one row per image.

        Args:
            context: not used; `load_context` has read it.
            model_input: raw pixel values, as an array (N, C, H, W) or, of one channel, (N, H, W), or as a
                DataFrame whose rows are flattened images.
            params: `score` is msp (default: the largest probability), max_logit or energy.

        Returns:
            A DataFrame with the columns `class` and `score` (higher = more in-distribution).

        Raises:
            ValueError: another shape, or another score.
        """
        import torch

        images_NCHW = self._as_images(model_input)
        score = (params or {}).get("score", "msp")
        if score not in ("msp", "max_logit", "energy"):
            raise ValueError(f"score is '{score}', but must be msp, max_logit or energy")
        predicted, scores = [], []
        with torch.inference_mode():
            for start in range(0, len(images_NCHW), _BATCH_SIZE):
                batch = torch.as_tensor(images_NCHW[start : start + _BATCH_SIZE]).to(self.device)
                logits_NK = self.model((batch / self.scale - self.mean_C11) / self.std_C11).float()
                predicted.append(logits_NK.argmax(dim=1).cpu().numpy())
                scores.append(_score(logits_NK, score).cpu().numpy())
        order = np.concatenate(predicted) if predicted else np.zeros(0, dtype=np.int64)
        values = np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)
        return pd.DataFrame({"class": self.classes[order], "score": values.astype(np.float64)})

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


def _score(logits_NK: Tensor, score: str) -> Tensor:
    if score == "msp":
        return logits_NK.softmax(dim=1).amax(dim=1)
    return logits_NK.amax(dim=1) if score == "max_logit" else logits_NK.logsumexp(dim=1)


set_model(Detector())
