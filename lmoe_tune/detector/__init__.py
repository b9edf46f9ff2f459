"""A detector that runs by itself: what `lmoe-tune export` writes, loaded and asked.

Needs torch, NumPy and Pillow. Neither Ray, Optuna nor MLflow is imported here, and nothing of this package that trains.

    from lmoe_tune.detector import load_detector

    detector = load_detector("cars-detector")
    detector.predict_file("photo.jpg")          # Prediction(label='...', score=0.97, is_ood=False)
    detector.predict(pixels)                    # of an array (N, C, H, W) with values in 0-255

N images, C channels, H W pixels, K classes.
"""

from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.detector.folder import Detector, Prediction, load_detector

__all__ = ["Detector", "Prediction", "Preprocessing", "load_detector"]
