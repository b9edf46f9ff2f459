from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.points import Points, Tried, num_points

MakeSpec = Callable[..., Spec]
SMALL = (
    "space.mixing_alpha={choices: [0.5, 1.0, 2.0]}",
    "space.consistency_weight={low: 0, high: 0.3, step: 0.1}",
    "space.outlier_ratio={choices: [0.5, 1]}",
)
METHODS = (
    "space={method: {choices: [logit_mixoe, baseline]}, mixing_alpha: {choices: [1, 2, 3]}, "
    "weight_decay: {choices: [0, 1.0e-4]}}"
)


@pytest.mark.parametrize(("settings", "size"), [(SMALL, 24), ((METHODS,), 8)])
def test_every_point_has_one_number(spec: MakeSpec, settings: tuple[str, ...], size: int) -> None:
    points = Points.of(spec(*settings))
    every = [points.at(index) for index in range(points.size)]
    assert points.size == num_points(spec(*settings)) == size
    assert len({tuple(sorted(point.items())) for point in every}) == size
    assert [points.index(point) for point in every] == list(range(size))
    assert sorted(points.shuffled(place) for place in range(size)) == list(range(size))


def test_a_method_has_its_own_parameters_only(spec: MakeSpec) -> None:
    points = Points.of(spec(METHODS))
    every = [points.at(index) for index in range(points.size)]
    assert sum(point["method"] == "baseline" for point in every) == 2
    assert all(("mixing_alpha" in point) == (point["method"] == "logit_mixoe") for point in every)


def test_a_method_with_a_range_is_left_out_of_the_points(spec: MakeSpec) -> None:
    mixed = spec(
        "space={method: {choices: [logit_mixoe, baseline, outlier_exposure]}, "
        "mixing_alpha: {low: 0.1, high: 10}}"
    )
    points = Points.of(mixed)
    assert [points.at(index) for index in range(points.size)] == [
        {"method": "baseline"},
        {"method": "outlier_exposure"},
    ]
    assert points.endless == ("logit_mixoe",)
    assert points.index({"method": "logit_mixoe", "mixing_alpha": 1.0}) is None
    assert num_points(mixed) is None, "one part of it is continuous"


def test_steps_are_decimal_and_what_lies_between_them_is_no_point(spec: MakeSpec) -> None:
    points = Points.of(spec(*SMALL))
    values = {points.at(index)["consistency_weight"] for index in range(points.size)}
    assert values == {0.0, 0.1, 0.2, 0.3}
    point = points.at(5)
    assert points.index(point | {"consistency_weight": 0.1 + 0.2}) is not None, (
        "30.000…4 hundredths"
    )
    assert points.index(point | {"consistency_weight": 0.15}) is None
    assert points.index({}) is None


def test_a_continuous_space_has_no_points(spec: MakeSpec) -> None:
    assert Points.of(spec(SMALL[0])).size == 0
    assert num_points(spec()) is None


def test_a_grid_of_a_hundred_million_points_costs_nothing(spec: MakeSpec) -> None:
    wide = spec(
        "search.sampler=grid",
        "space.mixing_alpha={low: 0.1, high: 1000, step: 0.1}",
        "space.consistency_weight={low: 0, high: 1000, step: 0.1}",
        "space.outlier_ratio={choices: [0.5]}",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = Tried(Points.of(wide))
    assert tried.points.size == 10_000 * 10_001
    for _ in range(200):
        point = tried.next()
        assert point is not None and point not in tried
        tried.add(point)
    assert len(tried) == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_the_next_point_is_one_that_was_not_tried_until_there_is_none(spec: MakeSpec) -> None:
    tried = Tried(Points.of(spec(*SMALL)))
    tried.add({"mixing_alpha": 7})
    assert len(tried) == 0, "not of this space"
    while (point := tried.next()) is not None:
        assert tried.next() == point
        tried.add(point)
    assert len(tried) == 24
