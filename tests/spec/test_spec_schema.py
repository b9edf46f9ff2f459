from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from lmoe_tune.spec import json_schema
from lmoe_tune.spec.document import parse


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def as_json(text):
    return json.loads(json.dumps(parse(text, "f", []).plain()))


def test_the_shipped_spaces_are_valid(validator, shipped):
    for path in shipped.glob("*.yaml"):
        assert list(validator.iter_errors(as_json(path.read_text(encoding="utf-8")))) == []


def test_a_minimal_spec_and_a_resolved_one_are_valid(validator, load, minimal):
    from lmoe_tune.spec import resolved_yaml

    validator.validate(as_json(minimal))
    validator.validate(yaml.safe_load(resolved_yaml(load(minimal))))


@pytest.mark.parametrize(
    "line",
    [
        "trian: {}",
        "train: {epochs: 0}",
        "train: {epoch: 1}",
        "objective: {metric: lr}",
        "objective: {constraints: {val_acc: {min: 1}}}",
        "objective: {constraints: {val_accuracy: {}}}",
        "objective: {constraints: {val_accuracy: {min: base}}}",
        "budget: {time: soon}",
        "search: {sampler: tpee}",
        "resources: {gpu: -1}",
    ],
)
def test_a_wrong_setting_is_not_valid(validator, minimal, line):
    assert list(validator.iter_errors(as_json(f"{minimal}{line}\n")))


@pytest.mark.parametrize(
    ("distribution", "valid"),
    [
        ("{low: 1, high: 2}", True),
        ("{low: 1.5, high: 2, step: 0.5}", True),
        ("{low: 1, high: 2, int: true}", True),
        ("{choices: [1, a, true]}", True),
        ("{low: 1.5, high: 2, int: true}", False),
        ("{low: 1}", False),
        ("{choices: []}", False),
        ("{choices: [1], low: 1}", False),
        ("{min: 1, max: 2}", False),
        ("1", False),
    ],
)
def test_a_distribution_is_one_of_three(validator, minimal, distribution, valid):
    text = minimal.replace("{low: 0.1, high: 10, log: true}", distribution)
    assert validator.is_valid(as_json(text)) == valid


def test_other_data_need_a_space(validator, minimal):
    text = minimal.replace("dataset: digits", "dataset: folder, root: .")
    assert validator.is_valid(as_json(text))
    assert not validator.is_valid(as_json(text[: text.index("space:")]))


def test_every_setting_is_described():
    schema = json_schema()
    sections = {"data", "model", "train", "objective", "search", "budget", "resources", "tracking"}
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        for key, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{name}.{key}"
    for key, field in schema["properties"].items():
        assert key in sections or field.get("description"), key
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["title"]
