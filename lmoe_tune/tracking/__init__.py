"""The view in MLflow: a projection of the ledger that can be delivered again at any time, to any server.

Importing this package costs nothing; MLflow itself (1.5 s) is imported where it is first used.
"""

from lmoe_tune.tracking.address import default_uri, shown
from lmoe_tune.tracking.logged_models import CheckpointGoneError
from lmoe_tune.tracking.projection import Delivered, Projection
from lmoe_tune.tracking.snapshot import BaselineSnapshot, ModelSource, SweepSnapshot

__all__ = [
    "BaselineSnapshot",
    "CheckpointGoneError",
    "Delivered",
    "ModelSource",
    "Projection",
    "SweepSnapshot",
    "default_uri",
    "shown",
]
