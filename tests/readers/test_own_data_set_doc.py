"""The data set that docs/data-sets.md adds is read, and does what every reader must do."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import READERS
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees

PAGE = Path(__file__).parents[2] / "docs" / "data-sets.md"


class MySet(ReaderCase):
    dataset = "my_set"

    def build(self, root: Path) -> Path:
        for part in ("train", "test"):
            lines = []
            for number in range(6):
                name = f"{part}{number:04d}.jpg"
                trees.save(root / "images" / name, trees.picture(number + 100 * len(part)))
                lines.append(f"{name} {('fly agaric', 'cep')[number % 2]}")
            trees.text(root / f"{part}.txt", lines)
        return root


@pytest.fixture(autouse=True)
def my_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's reader, in the registry."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    module: dict[str, Any] = {}
    exec(dedent(blocks[0]), module)
    monkeypatch.setitem(READERS, "my_set", module["READER"])


def test_the_pages_reader_reads_its_set(tmp_path: Path) -> None:
    table = read_table("my_set", str(MySet().build(tmp_path)))
    assert table.classes == ("cep", "fly agaric")
    assert Counter(table.official) == {"train": 6, "test": 6}


@pytest.mark.parametrize("name", [name for name in dir(ReaderCase) if name.startswith("test_")])
def test_the_pages_reader_does_what_every_reader_must(tmp_path: Path, name: str) -> None:
    case = getattr(MySet(), name)
    case(*[tmp_path] * len(inspect.signature(case).parameters))
