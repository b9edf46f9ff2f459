from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from lmoe_tune.sweep import schema
from lmoe_tune.sweep.ledger import Ledger


def test_the_page_about_records_is_what_the_schema_says() -> None:
    page = importlib.import_module("docs.make_records")
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "python docs/make_records.py"


def test_every_name_belongs_to_one_key() -> None:
    names = [key.at(3) if key.is_numbered else key.name for key in schema.KEYS]
    for name in names:
        assert sum(key.holds(name) for key in schema.KEYS) == 1


def test_a_family_is_read_by_number() -> None:
    attrs = {schema.RUN.at(1): {"pid": 1}, schema.RUN.at(0): {}, schema.RUN_END.at(0): {"how": "x"}}
    assert schema.RUN.all(attrs) == {0: {}, 1: {"pid": 1}}
    assert schema.RUN_END.all(attrs) == {0: {"how": "x"}}
    assert schema.EPOCH.at(12) == "epoch:0012"


def test_what_the_schema_does_not_know_cannot_be_written(ledger: Callable[..., Ledger]) -> None:
    written = ledger()
    with pytest.raises(AssertionError, match=r"surprise is not in lmoe_tune/sweep/schema\.py"):
        written.set_attr("surprise", 1)
