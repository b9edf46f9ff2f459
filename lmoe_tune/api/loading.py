"""Finding, reading and checking a spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmoe_tune.arguments import refuse_other, refuse_other_items
from lmoe_tune.readers.recognition import missing
from lmoe_tune.spec import Dataset, LoadedSpec, find_spec
from lmoe_tune.spec import load_spec as read_spec
from trainables import declarations, resolve_declaration


def load_spec(
    spec: str | Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    bounded: bool = False,
    look_for_data: bool = True,
) -> LoadedSpec:
    """Read and check a spec; starts nothing, and imports neither torch nor Ray.

    >>> load_spec("digits", ["train.epochs=5"]).spec.train.epochs
    5

    Args:
        spec: the path of a YAML file, or the name of a shipped one such as `digits`.
        overrides: `a.b=v` each, as `--set` takes them.
        name: of the sweep, instead of the spec's.
        bounded: the caller ends the sweep, so its budget need not.
        look_for_data: whether the data must be there.

    Raises:
        SpecError: with every problem that there is, in the order of the file.
        UsageError: there is no such file.
    """
    refuse_other(spec, "spec", str, Path)
    refuse_other_items(overrides, "overrides", str)
    refuse_other(name, "name", str, type(None))

    def lacking(dataset: Dataset) -> str | None:
        if not look_for_data:
            return None
        return missing(dataset.dataset, dataset.root, labelled=False)

    return read_spec(
        find_spec(str(spec)),
        overrides=overrides,
        name=name,
        declarations=declarations(),
        resolve=resolve_declaration,
        missing=lacking,
        bounded=bounded,
    )
