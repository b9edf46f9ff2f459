"""A detector that runs by itself: loading and using what `lmoe-tune export` writes.

Needs torch, NumPy and Pillow. Imports no Ray, Optuna or MLflow, and no training code of this
package.

    from lmoe_tune.detector import load_detector

    detector = load_detector("cars-detector")
    label, score, is_ood = detector("photo.jpg")    # or a Pillow image, bytes, an array (H, W, 3)
    detector(["a.jpg", "b.jpg"])                    # [Prediction(label='...', score=0.97, is_ood=False), ...]

`detector` predicts, `folder` reads an export, `trained` a trial's checkpoint, `network` is the
network with its normalisation, `scoring` runs it, `archive` checks a model before torch loads it.
Used by `lmoe-tune predict`, by the export that measures a threshold, and by the models in MLflow.
"""

from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.detector.detector import Detector, Prediction
from lmoe_tune.detector.folder import load_detector

__all__ = ["Detector", "Prediction", "Preprocessing", "load_detector"]
