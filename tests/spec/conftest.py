"""A spec file on disk and two small declarations: what every test of the spec starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import Dataset, Declaration, Parameter, Spec, load_spec

LOGIT_MIXOE = Declaration(
    name="logit_mixoe",
    summary="mixes logits",
    parameters=(
        Parameter("mixing_alpha", "float", 1.0, "alpha", low=0, low_exclusive=True),
        Parameter("mix_weight", "float", 1.0, "beta", low=0),
        Parameter("consistency_weight", "float", 1.0, "gamma", low=0),
        Parameter("outlier_ratio", "float", 1.0, "rho", low=0, low_exclusive=True, high=8),
        Parameter("consistency", "choice", "mse", "D", choices=("mse", "kl", "js")),
        Parameter("center_logits", "bool", False, "subtract the mean"),
        Parameter("num_groups", "int", 1, "groups", low=1, high=64),
    ),
)
BASELINE = Declaration(
    name="baseline", summary="cross entropy", parameters=(), needs_outliers=False
)
DECLARATIONS = {declaration.name: declaration for declaration in (LOGIT_MIXOE, BASELINE)}

MINIMAL = """\
name: x
trainable: logit_mixoe
data: {id: {dataset: digits}}
space: {mixing_alpha: {low: 0.1, high: 10, log: true}}
"""


def folder_missing(dataset: Dataset) -> str | None:
    """What a data set lacks, as far as these tests look."""
    if dataset.root is not None and not Path(dataset.root).is_dir():
        return f"there is no folder {dataset.root}"
    return None


class Loader:
    """Writes a text to `x.yaml` in the working directory and loads it."""

    def __call__(self, text: str | bytes = MINIMAL, *overrides: str, **arguments: Any) -> Spec:
        path = Path("x.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        arguments.setdefault("missing", folder_missing)
        return load_spec(path, overrides=overrides, declarations=DECLARATIONS, **arguments).spec

    def problems(self, text: str | bytes = MINIMAL, *overrides: str, **arguments: Any) -> list[str]:
        """The messages; fails where the text loads."""
        with pytest.raises(SpecError) as caught:
            self(text, *overrides, **arguments)
        return [str(problem) for problem in caught.value.problems]

    def problem(self, text: str | bytes = MINIMAL, *overrides: str, **arguments: Any) -> str:
        """The one message."""
        (message,) = self.problems(text, *overrides, **arguments)
        return message


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    monkeypatch.chdir(tmp_path)
    return Loader()


@pytest.fixture
def declarations() -> Mapping[str, Declaration]:
    return DECLARATIONS


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def with_line() -> Callable[[str], str]:
    """The minimal spec with more lines after its four."""
    return lambda line: MINIMAL + line + "\n"


@pytest.fixture
def with_space() -> Callable[[str], str]:
    """The minimal spec with another space."""
    lines: Sequence[str] = MINIMAL.splitlines()[:3]
    return lambda space: "\n".join([*lines, f"space: {space}", ""])


@pytest.fixture
def shipped() -> Path:
    return Path(__file__).parents[2] / "search_spaces"
