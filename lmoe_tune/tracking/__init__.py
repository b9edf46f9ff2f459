"""The view in MLflow: a projection of the ledger that can be delivered again at any time, to any
server.

`Projection` takes a `lmoe_tune.snapshot.SweepSnapshot` and makes MLflow show it;
`lmoe_tune.sweep.delivery` calls it again and again, in a process of its own. `content` says what
MLflow is told about a sweep and a trial (to show one more tag or metric, add it there and in
docs/mlflow.md), `runs` sends it, `comparison` prepares the pages, `logged_models` and `uploads`
deliver models and reports. `probe` asks a store before anything is made, and `judge` alone decides
whether MLflow refused or is unreachable. Only this package imports MLflow, and only where it is
first used: that takes 1.5 s, importing the package nothing.
"""

from lmoe_tune.tracking.address import absolute, default_uri, from_environment, shown
from lmoe_tune.tracking.logged_models import CheckpointGoneError
from lmoe_tune.tracking.probe import ask, refuse_closed
from lmoe_tune.tracking.projection import Delivered, Place, Projection

__all__ = [
    "CheckpointGoneError",
    "Delivered",
    "Place",
    "Projection",
    "absolute",
    "ask",
    "default_uri",
    "from_environment",
    "refuse_closed",
    "shown",
]
