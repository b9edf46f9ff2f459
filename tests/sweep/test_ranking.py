from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.ranking import Place, Ranking, costs_of

DIRECTIONS = ("maximize", "minimize", "maximize")
SOME = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few values, so that there are ties


def trial(number: int, values: tuple[float, ...], violation: float = 0.0) -> TrialRecord:
    return TrialRecord(number, "complete", {}, (), 0, values=values, violation=violation)


def betters(one: TrialRecord, other: TrialRecord, directions: tuple[str, ...]) -> bool:
    pairs = list(
        zip(costs_of(one.values, directions), costs_of(other.values, directions), strict=True)
    )
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def ranking(trials: list[TrialRecord], directions: tuple[str, ...]) -> Ranking:
    found = Ranking()
    for one in trials:
        found.add(Place(one.violation, costs_of(one.values, directions), one.number))
    return found


def slow_front(trials: list[TrialRecord], directions: tuple[str, ...]) -> list[int]:
    """All pairs."""
    feasible = [one for one in trials if one.violation == 0]
    return [
        one.number
        for one in feasible
        if not any(betters(other, one, directions) for other in feasible)
    ]


@pytest.mark.parametrize("objectives", [1, 2, 3])
@given(data=st.data())
def test_ranking_and_front_are_those_of_all_pairs(objectives: int, data: st.DataObject) -> None:
    directions = DIRECTIONS[:objectives]
    rows = data.draw(
        st.lists(
            st.tuples(st.tuples(*[SOME] * objectives), st.sampled_from([0.0, 0.0, 0.1, 0.2])),
            max_size=25,
        )
    )
    trials = [trial(number, *row) for number, row in enumerate(rows)]
    front = slow_front(trials, directions)
    assert sorted(ranking(trials, directions).front()) == front
    expected = sorted(
        trials,
        key=lambda one: (
            one.violation,
            one.number not in front,
            costs_of(one.values, directions),
            one.number,
        ),
    )
    numbers = [one.number for one in expected]
    assert list(ranking(trials, directions)) == numbers
    assert list(ranking(trials[::-1], directions)) == numbers, "in whatever order they come"
