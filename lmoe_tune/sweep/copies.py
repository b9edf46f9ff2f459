"""A sweep whose folder was copied within its home: both have the same id, by which the runs in
MLflow are found.
"""

from __future__ import annotations

from lmoe_tune import advice
from lmoe_tune.durable import read_object
from lmoe_tune.errors import UsageError
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.folder import find_sweeps
from lmoe_tune.sweep.ledger import Ledger


def original_of(ledger: Ledger) -> str | None:
    """The sweep of its home that this one is a copy of.

    Of two, the original is the one that is called as it was at the start: a backup beside it does
    not keep it from continuing. Only one that is called otherwise costs a look at the others.
    """
    folder = ledger.folder
    if folder != folder.whole or ledger.get(schema.NAME) == folder.name:
        return None

    for other in find_sweeps(folder.home):
        is_same = schema.SWEEP_ID.get(read_object(other.about)) == ledger.sweep_id
        if is_same and other.name != folder.name:
            return other.name
    return None


def about_copy(ledger: Ledger, original: str) -> tuple[str, str]:
    """What is wrong with a copy, and what to do."""
    warm = advice.setting("warm_start", f"[{original}]")
    wrong = (
        f"it is a copy of '{original}': both have the same id, and would share their runs in MLflow"
    )
    fix = (
        f"move {ledger.folder.path} out of this home, or delete it; to search on beside '{original}', start another"
        f" sweep from its trials, with --name and {warm}"
    )
    return wrong, fix


def refuse_copy(ledger: Ledger) -> None:
    """Raise UsageError if the sweep is a copy of another one of its home."""
    original = original_of(ledger)
    if original is not None:
        wrong, fix = about_copy(ledger, original)
        raise UsageError(
            f"the sweep '{ledger.folder.name}' cannot be used: {wrong}. To fix it: {fix}"
        )
