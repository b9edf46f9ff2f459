"""The JSON Schema of a search-space file, for editors that complete and check while you type."""

from __future__ import annotations

from typing import Any

from lmoe_tune.spec.metrics import SEARCHABLE
from lmoe_tune.spec.model import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REQUIRED = ("data",)
"""What every spec says; for data that are not embedded, `space` as well."""


def json_schema() -> dict[str, Any]:
    """The schema. What it cannot say (bounds of a trainable's parameters, files) is left to
    `check`.
    """
    schema = Spec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    definitions["Distribution"] = _distribution(definitions["Distribution"])
    definitions["ModelSpec"]["required"] = []
    definitions["TrainSpec"]["required"] = []
    definitions["BaselineSpec"]["required"] = []
    definitions["BoundSpec"]["minProperties"] = 1
    objective = definitions["ObjectiveSpec"]["properties"]
    metric = {"anyOf": [{"enum": list(SEARCHABLE)}, {"pattern": "^train_"}]}
    objective["metric"] |= metric
    objective["constraints"]["propertyNames"] = metric
    objective["constraints"]["default"] = {"val_accuracy": {"min": "baseline - 0.02"}}
    schema["properties"]["space"]["minProperties"] = 1
    digits = {
        "properties": {
            "data": {"properties": {"id": {"properties": {"dataset": {"const": "digits"}}}}}
        }
    }

    return {
        "$schema": DIALECT,
        "title": "lmoe-tune search space",
        "description": schema["description"],
        "type": "object",
        "properties": schema["properties"],
        "required": list(REQUIRED),
        "additionalProperties": False,
        "if": digits,
        "else": {"required": ["space"]},
        "$defs": definitions,
    }


def _distribution(generated: dict[str, Any]) -> dict[str, Any]:
    """One of three: a continuous range, a range of whole numbers, a choice."""
    fields = generated["properties"]

    def field(name: str, **more: Any) -> dict[str, Any]:
        return {"title": name.capitalize(), "description": fields[name]["description"], **more}

    def range_of(kind: str) -> dict[str, Any]:
        return {
            "low": field("low", type=kind),
            "high": field("high", type=kind),
            "log": field("log", type="boolean", default=False),
            "step": field("step", type=[kind, "null"], exclusiveMinimum=0),
        }

    def variant(title: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
        return {
            "title": title, "type": "object", "properties": properties, "required": required,
            "additionalProperties": False,
        }  # fmt: skip

    values = {"type": ["number", "string", "boolean"]}
    choices = field("choices", type="array", minItems=1, uniqueItems=True, items=values)

    return {
        "title": "Distribution",
        "description": generated["description"],
        "oneOf": [
            variant(
                "Range", range_of("number") | {"int": field("int", const=False)}, ["low", "high"]
            ),
            variant(
                "Whole numbers",
                range_of("integer") | {"int": field("int", const=True)},
                ["low", "high", "int"],
            ),
            variant("Choices", {"choices": choices}, ["choices"]),
        ],
    }
