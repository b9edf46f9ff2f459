from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lmoe_tune.api.loading import load_spec
from lmoe_tune.spec import SearchSpec
from lmoe_tune.spec.outliers import numbers_of_outliers
from lmoe_tune.spec.searching import PRUNERS, SAMPLERS

PAGE = Path(__file__).parents[2] / "docs" / "search.md"


@pytest.mark.parametrize(("setting", "told"), [("sampler", SAMPLERS), ("pruner", PRUNERS)])
def test_every_choice_is_explained_here_and_on_the_page(setting: str, told: dict) -> None:
    assert set(told) == set(get_args(SearchSpec.model_fields[setting].annotation))
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name, text in told.items() if f"| `{name}` | {text} |" not in page] == []


def test_a_huge_range_of_outliers_is_not_counted_one_by_one() -> None:
    numbers = numbers_of_outliers(load_spec("digits", ["space.outlier_ratio.high=1e9"]).spec)
    assert numbers is not None
    assert (numbers.fewest, numbers.most) == (8, 32_000_000_000)
    assert numbers.count > 1000
