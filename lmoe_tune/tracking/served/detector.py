"""A detector as MLflow runs it. MLflow copies this file into every model that is logged, and
executes it.

The model brings the package that it was logged with, so it runs where no lmoe-tune is installed.
What it says comes from `lmoe_tune.detector`, as with `lmoe-tune predict`. Nothing of it is imported
before the model is loaded: logging a model executes this file too, and must not cost the import of
torch.

N images, C channels, H W pixels.
"""

from __future__ import annotations

import base64
import binascii
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from mlflow.pyfunc import PythonModelContext  # type: ignore[attr-defined]

IMAGE = "image"
SCORES = ("msp", "max_logit", "energy")


class Served(PythonModel):
    """Class, score (higher = more in-distribution) and, of an exported detector, `is_ood` of each
    image.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load an exported detector, or a trial's checkpoint. Nothing is unpickled."""
        if "lmoe_tune" not in sys.modules:
            sys.path.insert(0, context.artifacts["package"])

        if "detector" in context.artifacts:
            from lmoe_tune.detector import load_detector

            self.detector = load_detector(context.artifacts["detector"])
        else:
            from lmoe_tune.detector.trained import load_trained

            self.detector = load_trained(context.artifacts["checkpoint"])

    # MLflow reads the annotation of `model_input`: any but this one or none at all makes it warn or
    # validate.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image, with the columns `class` and `score`; of an exported detector also
        `is_ood`.

        Args:
            context: not used; `load_context` has read it.
            model_input: a DataFrame with a column `image` of image files, as bytes or in base64; or
                pixels in 0-255, as an array (N, C, H, W) or (C, H, W), of one channel also without
                C, or as a DataFrame whose rows are flattened images.
            params: `score` is msp, max_logit or energy; the one that the search went by is the
                default. For another score there is no `is_ood`.

        Raises:
            ValueError: none of these, or a file that cannot be read.
        """
        score = (params or {}).get("score") or None
        if score not in (None, *SCORES):
            raise ValueError(f"score is '{score}', but must be {', '.join(SCORES[:-1])} or energy")

        if isinstance(model_input, pd.DataFrame) and IMAGE in model_input.columns:
            files = [self._decoded(content) for content in model_input[IMAGE]]
            if files:
                pixels = np.stack(files)
            else:
                pixels = np.zeros((0, *self.detector.preprocessing.shape))
        else:
            flat = isinstance(model_input, pd.DataFrame)
            pixels = self._as_images(np.asarray(model_input), flat=flat)

        found = self.detector.predict(pixels, score)
        columns: dict[str, Any] = {
            "class": [one.label for one in found],
            "score": np.array([one.score for one in found], dtype=np.float64),
        }
        if self.detector.threshold is not None and score in (None, self.detector.score):
            columns["is_ood"] = np.array([one.is_ood for one in found], dtype=bool)

        return pd.DataFrame(columns)

    def _decoded(self, content: Any) -> np.ndarray[Any, Any]:
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                content = None

        if not isinstance(content, bytes | bytearray):
            raise ValueError(f"'{IMAGE}' must hold image files, as bytes or in base64")

        try:
            return self.detector.preprocessing.read(bytes(content))
        except Exception as error:
            why = getattr(error, "why", error)
            raise ValueError(f"'{IMAGE}' holds a file that cannot be read: it {why}") from None

    def _as_images(self, array: np.ndarray[Any, Any], *, flat: bool) -> np.ndarray[Any, Any]:
        shape = self.detector.preprocessing.shape
        accepted: list[tuple[int, ...]] = [(int(np.prod(shape)),)] if flat else [shape]
        if shape[0] == 1 and not flat:
            accepted.append(shape[1:])

        single = not flat and array.shape in accepted
        if not single and (array.ndim < 2 or array.shape[1:] not in accepted):
            wanted = " or ".join(f"(N, {str(one).strip('(),')})" for one in accepted)
            raise ValueError(f"the input has the shape {array.shape}, but must be {wanted}")

        return np.ascontiguousarray(array.reshape(-1, *shape), dtype=np.float32)


set_model(Served())
