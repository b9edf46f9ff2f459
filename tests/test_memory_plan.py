from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune import memory_plan
from lmoe_tune.memory_plan import memory_in_words
from lmoe_tune.spec import Spec
from lmoe_tune.spec.outliers import outliers_in_words, outliers_per_step

MakeSpec = Callable[..., Spec]
POINTS = [{"mixing_alpha": 1.0, "consistency_weight": 1.0, "outlier_ratio": 0.5}]


def on_gpu(make_spec: MakeSpec, *changes: str) -> Spec:
    return make_spec("train.device=cuda", "train.precision=fp32", "resources.gpu=0.5", *changes)


def test_the_largest_trial_is_that_with_the_most_outliers(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 images, 32 outliers at the upper end of the ratio, and their mixtures."""
    monkeypatch.setattr(memory_plan, "gpu_bytes", lambda: 80 << 30)
    said = memory_in_words(on_gpu(make_spec), POINTS, 5, tmp_path)
    assert said is not None
    assert "96 rows" in said
    assert "its share of this GPU is 42.9 GB" in said and "too little" not in said


def test_what_does_not_fit_is_said_with_a_batch_that_does(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "gpu_bytes", lambda: 10_000_000)
    said = memory_in_words(on_gpu(make_spec), POINTS, 5, tmp_path)
    assert said is not None and "too little, set train.batch_size to" in said
    batch = int(said.partition("train.batch_size to ")[2].split()[0])
    assert 0 < batch < 32
    fits = on_gpu(make_spec, f"train.batch_size={batch}")
    assert "too little" not in str(memory_in_words(fits, POINTS, 5, tmp_path))


def test_on_a_cpu_nothing_is_said(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert memory_in_words(make_spec("train.device=cpu"), POINTS, 5, tmp_path) is None


@pytest.mark.parametrize(
    ("ratio", "number"), [(0, 0), (0.001, 2), (0.25, 8), (0.3, 10), (1, 32), (1.99, 64)]
)
def test_a_step_has_whole_outliers_and_at_least_two(ratio: float, number: int) -> None:
    assert outliers_per_step(ratio, 32) == number


def test_a_searched_ratio_is_said_in_whole_outliers(make_spec: MakeSpec) -> None:
    said = outliers_in_words(make_spec("space.outlier_ratio={low: 0.25, high: 1}"))
    assert said is not None
    assert said.startswith("8 to 32 beside 32 images in every step") and "1/32" in said
    assert outliers_in_words(make_spec("space={mixing_alpha: {low: 0.5, high: 2}}")) is None
