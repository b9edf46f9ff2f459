"""An exported detector as MLflow runs it. MLflow copies this file into the registered model and executes it.

All that it says comes from `lmoe_tune.detector`, as with `lmoe-tune predict`. N images, C channels, H W pixels.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from mlflow.pyfunc import PythonModelContext  # type: ignore[attr-defined]

IMAGE = "image"


class ExportedDetector(PythonModel):
    """Class, score (higher = more in-distribution) and `is_ood` of each image."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the detector. Nothing is unpickled."""
        from lmoe_tune.detector import load_detector

        self.detector = load_detector(context.artifacts["detector"])

    # MLflow reads the annotation of `model_input`: any but this one or none at all makes it warn or validate.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per image, with the columns `class`, `score` and `is_ood`.

        Args:
            context: not used; `load_context` has read it.
            model_input: a DataFrame with a column `image` of image files, as bytes or in base64; or pixels in 0-255,
                as an array (N, C, H, W) or (C, H, W), of one channel also without C, or as a DataFrame whose rows are
                flattened images.

        Raises:
            ValueError: none of these, or a file that cannot be read.
        """
        if isinstance(model_input, pd.DataFrame) and IMAGE in model_input.columns:
            pixels = np.stack([self._decoded(content) for content in model_input[IMAGE]])
        else:
            pixels = self._as_images(
                np.asarray(model_input), flat=isinstance(model_input, pd.DataFrame)
            )
        found = self.detector.predict(pixels)
        columns = {
            "class": [one.label for one in found],
            "score": [one.score for one in found],
            "is_ood": [one.is_ood for one in found],
        }
        return pd.DataFrame(columns)

    def _decoded(self, content: Any) -> np.ndarray[Any, Any]:
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError(
                    f"'{IMAGE}' must hold image files, as bytes or in base64"
                ) from None
        if not isinstance(content, bytes | bytearray):
            raise ValueError(f"'{IMAGE}' must hold image files, as bytes or in base64")
        with tempfile.TemporaryDirectory(prefix="lmoe-tune-") as scratch:
            path = Path(scratch) / "image"
            path.write_bytes(content)
            try:
                return self.detector.preprocessing.read(path)
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


set_model(ExportedDetector())
