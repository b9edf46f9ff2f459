"""Hyperparameter search for out-of-distribution detection with Logit Mixture Outlier Exposure."""

__version__ = "0.1.0"
