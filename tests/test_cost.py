from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune import cost
from lmoe_tune.spec import Spec, load_spec
from trainables import declarations


@pytest.fixture(autouse=True)
def _a_known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_matmul_flops", lambda: 100e9)
    monkeypatch.setattr(cost.os, "cpu_count", lambda: 2)


def spec_of(folder: Path, *overrides: str) -> Spec:
    for name in "abcd":
        (folder / "id" / name).mkdir(parents=True)
        for place in range(50):
            (folder / "id" / name / f"{place}.jpg").touch()
    (folder / "out").mkdir()
    (folder / "out" / "x.jpg").touch()
    path = folder / "mine.yaml"
    path.write_text(
        f"data:\n  id: {{dataset: folder, root: {folder}/id}}\n"
        f"  outliers: {{dataset: folder, root: {folder}/out}}\n"
        "space: {mixing_alpha: {low: 0.1, high: 10, log: true}}\n",
        encoding="utf-8",
    )
    return load_spec(path, overrides=overrides, declarations=declarations()).spec


def test_the_demonstration_is_a_matter_of_minutes() -> None:
    path = Path(__file__).parents[1] / "search_spaces" / "digits.yaml"
    found = cost.estimate(load_spec(path, declarations=declarations()).spec)

    assert found is not None
    assert 1 / 60 < found.hours < 10 / 60
    assert found.trials == 16


def test_no_point_of_a_finite_space_is_paid_for_twice() -> None:
    path = Path(__file__).parents[1] / "search_spaces" / "digits.yaml"
    spec = load_spec(path, declarations=declarations()).spec
    one, all_of_them = cost.estimate(spec, 1), cost.estimate(spec, 100)

    assert one is not None and all_of_them is not None
    assert (one.trials, all_of_them.trials) == (1, 16)
    assert one.hours < all_of_them.hours


def test_ninety_epochs_on_a_cpu_are_a_matter_of_days_and_said_so(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    found = cost.estimate(spec)

    assert found is not None
    assert found.images == round(200 * 0.75 * 0.54)
    assert 24 < found.hours < 240
    said = cost.in_words(found, spec)
    assert "a baseline of 90 epochs and 32 trials of 10" in said
    assert "2 CPU cores" in said and "not a measurement" in said


def test_more_trials_epochs_and_pixels_cost_more_and_a_gpu_less(tmp_path: Path) -> None:
    base = cost.estimate(spec_of(tmp_path / "a"))
    assert base is not None
    for name, override, dearer in (
        ("b", "budget.trials=64", True),
        ("c", "train.epochs=20", True),
        ("d", "data.crop=224", False),
        ("e", "data.id.limit=100", False),
        ("f", "resources.gpu=1", False),
    ):
        other = cost.estimate(spec_of(tmp_path / name, override))
        assert other is not None
        assert (other.hours > base.hours) == dearer, override


def test_slots_that_wait_for_the_baseline_count_as_gpu_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gpu_hours(name: str, gpus: int, *overrides: str) -> float:
        monkeypatch.setattr(cost, "num_gpus", lambda: gpus)
        monkeypatch.setattr(cost.os, "cpu_count", lambda: 64)
        found = cost.estimate(spec_of(tmp_path / name, "resources.gpu=1", *overrides))
        assert found is not None
        return found.gpu_hours

    alone, eight = gpu_hours("a", 1), gpu_hours("b", 8)
    no_baseline = gpu_hours("c", 8, "model.baseline.epochs=1")
    assert no_baseline < alone < eight
    baseline = alone - no_baseline  # one slot's, about
    assert eight - alone == pytest.approx(7 * baseline, rel=0.2)

    found = cost.estimate(spec_of(tmp_path / "d"))
    assert found is not None and found.gpu_hours == 0


def test_gpu_hours_are_said_where_there_are_any(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "resources.gpu=0.5")
    found = cost.estimate(spec)
    assert found is not None
    assert "GPU-hours reserved (waiting for the baseline included)" in cost.in_words(found, spec)


def test_images_that_cannot_be_counted_give_no_estimate(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    gone = spec.data.id.model_copy(update={"root": str(tmp_path / "gone")})
    data = spec.data.model_copy(update={"id": gone})

    assert cost.estimate(spec.model_copy(update={"data": data})) is None
