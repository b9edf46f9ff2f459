"""The search-space file, typed: every problem at once with its place. Imports neither torch nor
Ray.

`check.load_spec` does all of it. To add a setting: its field in `model`, and a check in `sections`
where it depends on others.
"""

from lmoe_tune.spec.architectures import ARCHITECTURES, TIMM
from lmoe_tune.spec.check import (
    LoadedSpec,
    load_data,
    load_params,
    load_spec,
    located,
)
from lmoe_tune.spec.declaration import (
    METHOD,
    SHARED_PARAMETERS,
    Declaration,
    Parameter,
    Range,
    Term,
    Value,
    combined,
    own_params,
)
from lmoe_tune.spec.locate import find_spec, shipped_specs
from lmoe_tune.spec.metrics import METRICS, Direction, Metric
from lmoe_tune.spec.model import (
    AugmentSpec,
    BaselineSpec,
    BoundSpec,
    Budget,
    Dataset,
    DataSpec,
    Distribution,
    ModelSpec,
    ObjectiveSpec,
    Resources,
    SearchSpec,
    Spec,
    TrackingSpec,
    TrainSpec,
)
from lmoe_tune.spec.quantity import BoundExpression, duration_s, duration_text
from lmoe_tune.spec.record import (
    diff,
    identity,
    resolved_yaml,
    spec_from_resolved,
    with_start_of,
)
from lmoe_tune.spec.schema import json_schema

__all__ = [
    "ARCHITECTURES",
    "METHOD",
    "METRICS",
    "SHARED_PARAMETERS",
    "TIMM",
    "AugmentSpec",
    "BaselineSpec",
    "BoundExpression",
    "BoundSpec",
    "Budget",
    "DataSpec",
    "Dataset",
    "Declaration",
    "Direction",
    "Distribution",
    "LoadedSpec",
    "Metric",
    "ModelSpec",
    "ObjectiveSpec",
    "Parameter",
    "Range",
    "Resources",
    "SearchSpec",
    "Spec",
    "Term",
    "TrackingSpec",
    "TrainSpec",
    "Value",
    "combined",
    "diff",
    "duration_s",
    "duration_text",
    "find_spec",
    "identity",
    "json_schema",
    "load_data",
    "load_params",
    "load_spec",
    "located",
    "own_params",
    "resolved_yaml",
    "shipped_specs",
    "spec_from_resolved",
    "with_start_of",
]
