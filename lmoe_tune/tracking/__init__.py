"""The view in MLflow: a projection of the ledger that can be delivered again at any time, to any server.

Importing this package costs nothing; MLflow itself (1.5 s) is imported where it is first used.
"""

from lmoe_tune.tracking.address import absolute, default_uri, from_environment, shown
from lmoe_tune.tracking.logged_models import CheckpointGoneError
from lmoe_tune.tracking.probe import Probe, probe, refuse_closed
from lmoe_tune.tracking.projection import Delivered, Projection

__all__ = [
    "CheckpointGoneError",
    "Delivered",
    "Probe",
    "Projection",
    "absolute",
    "default_uri",
    "from_environment",
    "probe",
    "refuse_closed",
    "shown",
]
