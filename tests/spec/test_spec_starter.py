from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.spec import load_spec, shipped_specs
from lmoe_tune.spec.starter import renamed


@pytest.mark.parametrize(
    "name", ["mine", "12", "1e4", "0x1F", "null", "true", "No", "2026-11-24", "a.b_c-d"]
)
def test_a_renamed_space_differs_in_its_name_only(tmp_path, declarations, name):
    for space in shipped_specs():
        compare_renamed(tmp_path, declarations, space, name)


def compare_renamed(tmp_path, declarations, space, name):
    shipped = shipped_specs()[space]
    path = tmp_path / f"{name}.yaml"
    path.write_text(
        renamed(shipped.read_text(encoding="utf-8"), space, name, Path("spaces") / path.name),
        encoding="utf-8",
    )
    before = load_spec(shipped, declarations=declarations).spec
    after = load_spec(path, declarations=declarations).spec
    assert after.name == name
    assert after.tracking.experiment in (None, name)
    unnamed = {"name": before.name, "tracking": before.tracking}
    assert after.model_copy(update=unnamed) == before


@pytest.mark.parametrize("space", sorted(shipped_specs()))
def test_the_comments_of_a_renamed_space_name_the_new_file(space):
    text = renamed(
        shipped_specs()[space].read_text(encoding="utf-8"), space, "mine", Path("spaces/mine.yaml")
    )
    assert f"lmoe-tune data inspect {space}" not in text
    assert f"lmoe-tune search {space}" not in text
    assert "spaces/mine.yaml" in text or "`lmoe-tune" not in text.replace("`lmoe-tune methods`", "")
