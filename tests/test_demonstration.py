"""The candidates for a demonstration are drawn the same each time, and can be searched."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

import lmoe_tune as lt

demonstration = importlib.import_module("benchmarks.demonstration")
NAMES = [candidate.name for candidate in demonstration.CANDIDATES]


@pytest.mark.parametrize("candidate", demonstration.CANDIDATES, ids=NAMES)
def test_a_text_is_drawn_the_same_each_time_and_differs_by_typeface(candidate) -> None:
    first, second, other = (
        np.asarray(demonstration.drawn(candidate, typeface, np.random.default_rng(3)))
        for typeface in ("DejaVuSerif", "DejaVuSerif", "cmtt10")
    )
    assert first.shape == (candidate.side, candidate.side, 3)
    assert np.array_equal(first, second)
    assert np.abs(first.astype(int) - other).mean() > 2
    assert first.std() > 20, "there is ink on the paper"


def test_its_spec_is_sound(tmp_path: Path) -> None:
    few = dataclasses.replace(demonstration.CANDIDATES[0], per_class=1)
    spec = lt.load_spec(demonstration.make(few, tmp_path)).spec
    assert set(spec.space) == set(demonstration.point(np.random.default_rng(0)))
    assert len(list((tmp_path / "id").glob("*/*.png"))) == len(few.typefaces)
