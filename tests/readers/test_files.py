from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.readers import LayoutError
from lmoe_tune.readers.files import on_disk, read_column, read_list, read_pairs


@pytest.mark.parametrize("read", [read_list, read_pairs, read_column])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_list_without_a_line_is_refused(tmp_path: Path, read: object, content: str) -> None:
    assert callable(read)
    path = tmp_path / "list.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LayoutError, match=r"list\.txt is empty.*unpack the archive again"):
        read(path)


def test_a_column_says_one_thing_of_each_id(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1 a b\n2 c\n1 a b\n", encoding="utf-8")
    assert read_column(path) == {"1": "a b", "2": "c"}

    path.write_text("1 a\n2 c\n1 b\n", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"list\.txt contradicts itself: 1 is 'a' and 'b'"):
        read_column(path)


def test_a_path_is_found_in_another_case(tmp_path: Path) -> None:
    (tmp_path / "Data" / "IMAGES").mkdir(parents=True)
    assert on_disk(tmp_path, "data/images") == "Data/IMAGES"
    assert on_disk(tmp_path, "data/lists") is None
