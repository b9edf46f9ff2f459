from __future__ import annotations

import pytest

from lmoe_tune.spec import SHARED_PARAMETERS, load_spec
from lmoe_tune.spec.defaults import DIGITS


@pytest.fixture
def loaded(shipped, declarations):
    return lambda name: load_spec(shipped / name, declarations=declarations).spec


def test_digits_yaml_says_what_the_digits_default_to(load, loaded):
    spec = load("name: digits\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n")
    assert spec == loaded("digits.yaml")


def test_every_default_of_the_digits_is_used(loaded):
    spec = loaded("digits.yaml").model_dump(mode="json", by_alias=True)

    def contained(default, value):
        if isinstance(default, dict):
            return all(contained(item, value[key]) for key, item in default.items())
        if isinstance(default, list):
            return all(contained(item, value[place]) for place, item in enumerate(default))
        return default == value

    assert contained(DIGITS, spec)


def test_digits_yaml_is_the_embedded_demonstration(loaded):
    spec = loaded("digits.yaml")
    assert (spec.train.epochs, spec.train.batch_size, spec.budget.trials) == (10, 32, 16)
    assert (spec.search.max_concurrent, spec.resources.gpu, spec.resources.cpu) == (2, 0, 1)
    assert (spec.space["outlier_ratio"].low, spec.space["outlier_ratio"].high) == (0.25, 1)


def test_cars_yaml_is_that_of_the_design(loaded):
    spec = loaded("cars.yaml")
    assert (spec.data.id.dataset, spec.data.outliers.limit, spec.data.resize, spec.data.crop) == (
        "stanford_cars",
        40_000,
        512,
        448,
    )
    assert (spec.model.arch, spec.model.weights, spec.model.baseline.epochs) == (
        "resnet50",
        "imagenet",
        90,
    )
    assert (spec.train.lr, spec.train.precision, spec.fixed) == (1e-3, "bf16", {})
    assert (spec.budget.trials, spec.budget.time, spec.budget.max_failed) == (64, 43_200, 8)
    assert (spec.resources.gpu, spec.resources.cpu, spec.tracking.experiment) == (1, 4, "cars")


def test_shared_parameters_default_to_the_training_settings():
    assert {parameter.name: parameter.default for parameter in SHARED_PARAMETERS} == {
        "lr": None,
        "weight_decay": None,
    }


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("cars", "stanford_cars"),
        ("aircraft", "fgvc_aircraft"),
        ("birds", "nabirds"),
        ("butterfly", "butterfly200"),
        ("folder", "folder"),
    ],
)
def test_the_spaces_of_image_folders_start_from_the_published_protocol(loaded, name, dataset):
    spec = loaded(f"{name}.yaml")
    assert (spec.name, spec.data.id.dataset, spec.data.outliers.limit) == (name, dataset, 40_000)
    assert (spec.data.resize, spec.data.crop, spec.model.arch, spec.model.weights) == (
        512,
        448,
        "resnet50",
        "imagenet",
    )
    assert (spec.train.epochs, spec.train.batch_size, spec.train.lr, spec.train.weight_decay) == (
        10,
        32,
        1e-3,
        1e-5,
    )
    assert (spec.train.min_lr, spec.model.baseline.epochs) == (1e-6, 90)
    assert set(spec.space) == {
        "mixing_alpha", "mix_weight", "consistency_weight", "outlier_ratio",
    }  # fmt: skip
    assert [point["mix_weight"] for point in spec.search.start_from] == [1, 5]
    assert spec.resources.gpu == 1, "what two to a GPU gain is not measured"
