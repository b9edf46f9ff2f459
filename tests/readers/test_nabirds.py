from __future__ import annotations

from collections import Counter
from pathlib import Path

from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, table


class TestNabirds(ReaderCase):
    dataset = "nabirds"

    def build(self, root: Path) -> Path:
        return trees.nabirds(root)


def test_nabirds_ids_have_gaps(tmp_path: Path) -> None:
    found = table("nabirds", trees.nabirds(tmp_path))
    assert_is_whole(found)
    assert found.classes == tuple(f"Bird No. {id_} (Adult male)" for id_ in (77, 295, 313, 1010))
    assert {
        path.split("/")[1]
        for path, label in zip(found.paths, found.labels, strict=True)
        if label == 3
    } == {"1010"}
    assert Counter(found.official) == {"train": 12, "test": 12}
