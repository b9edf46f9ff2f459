"""Whether the images are those that a sweep was searched on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmoe_tune.data import describe_splits
from lmoe_tune.durable import read_object
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import DataSpec
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.wording import first_few


def change_of_data(ledger: Ledger, data: DataSpec) -> str | None:
    """How images differ from those that a study was made on, for its record of changes; None if
    they do not.
    """
    now = describe_splits(data, ledger.folder.home)
    known = ledger.get(schema.FINGERPRINT)
    if known is None or known == now["fingerprint"]:
        return None

    different = "; ".join(_differences(_recorded(ledger), now)) or "other files, but as many"
    return f"data: {known} -> {now['fingerprint']} ({different})"


def refuse_other_data(ledger: Ledger) -> None:
    """Raises UsageError if the images are not those of the search: one that is missing moves others
    from training, or from the sealed test, into the validation.
    """
    change = change_of_data(ledger, ledger.spec.data)
    if change is not None:
        raise UsageError(
            f"the data of the sweep '{ledger.folder.whole.name}' have changed since it was searched: {change}. "
            "Restore the old data: what is validated now may be what was trained on, or sealed"
        )


def _recorded(ledger: Ledger) -> Mapping[str, Any]:
    recorded: Mapping[str, Any] = read_object(ledger.folder.whole.environment).get("data", {})
    return recorded


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Classes and numbers of images that were others, as far as the records say."""
    known = set(before.get("classes", now["classes"])["train"])
    there = set(now["classes"]["train"])
    for word, names in (("gone", known - there), ("new", there - known)):
        if names:
            yield f"{word}: class {first_few(sorted(names))}"

    for part, count in now["images"].items():
        was = before.get("images", {}).get(part, count)
        if was != count:
            yield f"{part} had {was} images and has {count}"
