from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmoe_tune.memory_plan import MemoryPlan, memory_plan
from lmoe_tune.spec import Spec
from lmoe_tune.spec.outliers import outliers_in_words, outliers_per_step

MakeSpec = Callable[..., Spec]
GB = 10**9
ALIKE = MemoryPlan(
    rows=96,
    training=20 * GB,
    evaluation=3 * GB,
    baseline=10 * GB,
    share=0.5,
    batch_size=32,
    searches_ratio=True,
    fixed=800_000_000,
    per_row=200_000_000,
)


def on_gpu(make_spec: MakeSpec, *changes: str) -> Spec:
    return make_spec("train.device=cuda", "train.precision=fp32", "resources.gpu=0.5", *changes)


def planned(spec: Spec, folder: Path) -> MemoryPlan:
    plan = memory_plan(spec, folder)
    assert plan is not None
    return plan


def test_the_largest_trial_is_that_with_the_most_outliers(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    """32 images, 32 outliers at the upper end of the ratio, and their mixtures."""
    plan = planned(on_gpu(make_spec), tmp_path)
    assert plan.rows == 96
    assert plan.training == plan.fixed + 96 * plan.per_row
    assert plan.baseline == plan.fixed + 32 * plan.per_row
    assert plan.evaluation == plan.fixed + 512 * 2 * 64 * 64 * 4, "two maps of 64 channels"
    assert planned(on_gpu(make_spec, "model.baseline.batch_size=64"), tmp_path).baseline == (
        plan.fixed + 64 * plan.per_row
    )


def test_of_several_methods_the_largest_counts(make_spec: MakeSpec, tmp_path: Path) -> None:
    space = "space={method: {choices: [logit_mixoe, baseline]}, lr: {low: 0.1, high: 1}}"
    assert planned(on_gpu(make_spec, space), tmp_path).rows == 96


@pytest.mark.parametrize("arch", ["convnext_tiny", "vit_b_16"])
@pytest.mark.slow  # imports torchvision
def test_a_model_whose_initialisation_looks_at_numbers_can_be_counted(arch: str) -> None:
    from lmoe_tune.training.memory import model_memory

    found = model_memory(arch, 5, 3, 224, bf16=True)
    assert found.saved_per_row > found.evaluated_per_row > 0


def test_what_fits_is_said_without_advice() -> None:
    said = ALIKE.compared(80 * GB)
    assert "its share of a GPU is 40 GB" in said
    assert "too little" not in said


def test_what_does_not_fit_is_said_with_what_does() -> None:
    said = ALIKE.compared(24 * GB)
    assert "too little; set train.batch_size: 18 at most, or a narrower outlier_ratio" in said
    assert said.endswith(", or resources.gpu: 1")
    rows = 18 * 3
    assert ALIKE.fixed + rows * ALIKE.per_row <= ALIKE.share_of(24 * GB)


def test_everything_that_does_not_fit_is_named() -> None:
    wide = replace(ALIKE, searches_ratio=False, baseline=16 * GB, evaluation=16 * GB)
    assert wide.advice(24 * GB) == (
        "too little; set train.batch_size: 18 at most and a smaller model.baseline.batch_size and "
        "a smaller data.crop, or resources.gpu: 1"
    )
    assert wide.advice(1 * GB) == "too little; set a smaller data.crop or model.arch"


def test_where_no_gpu_can_be_asked_that_is_said() -> None:
    assert ALIKE.compared(None).endswith("no GPU can be asked here")


def test_on_a_cpu_nothing_is_said(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert memory_plan(make_spec("train.device=cpu"), tmp_path) is None


@pytest.mark.parametrize(
    ("ratio", "number"), [(0, 0), (0.001, 2), (0.25, 8), (0.3, 10), (1, 32), (1.99, 64)]
)
def test_a_step_has_whole_outliers_and_at_least_two(ratio: float, number: int) -> None:
    assert outliers_per_step(ratio, 32) == number


def test_a_searched_ratio_is_said_in_whole_outliers(make_spec: MakeSpec) -> None:
    for searched in ("{low: 0.25, high: 1}", "{low: 0.25, high: 1, step: 0.25}"):
        said = outliers_in_words(make_spec(f"space.outlier_ratio={searched}"))
        assert said is not None
        assert said.startswith(
            "8 to 32 beside 32 images in every step; a ratio is rounded to whole "
        )
        assert "steps of" not in said
    assert outliers_in_words(make_spec("space={mixing_alpha: {low: 0.5, high: 2}}")) is None
