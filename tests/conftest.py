from __future__ import annotations

import dataclasses
import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.spec import Dataset, DataSpec, Spec, load_spec
from lmoe_tune.training.platform import resolve_platform
from tests.command_line import Done, run_in
from trainables import declarations

if TYPE_CHECKING:
    from lmoe_tune.data.image_source import ImageSource

MakeSpec = Callable[..., Spec]

# Whoever starts the tests with nohup, or in the background of a script, has them ignored, and commands inherit that.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """One thread and two give different bits; tests that need no torch do not pay for its import."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Done]:
    """`lmoe-tune` with these arguments in an empty folder, run in this process."""
    return functools.partial(run_in, tmp_path)


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """A spec over the digits on one CPU thread in fp32: two epochs each, and what `--set` overrides say."""

    def make(*overrides: str) -> Spec:
        path = tmp_path / "tiny.yaml"
        path.write_text(
            "name: tiny\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n", encoding="utf-8"
        )
        small = [
            "train.epochs=2",
            "model.baseline.epochs=2",
            "train.precision=fp32",
            "train.device=cpu",
        ]
        loaded = load_spec(path, overrides=[*small, *overrides], declarations=declarations())
        return resolve_platform(loaded.spec)

    return make


@pytest.fixture(scope="session")
def tiny_data() -> SearchData:
    """A few images of every part of the digits: an epoch takes milliseconds."""
    data = load_search_data(
        DataSpec(id=Dataset(dataset="digits"), outliers=Dataset(dataset="photo_china"))
    )
    return dataclasses.replace(
        data,
        train=data.train.some(np.arange(72)),
        train_labels=data.train_labels[:72],
        outliers=data.outliers.some(np.arange(0, len(data.outliers), 60)),
        val=data.val.some(np.arange(40)),
        val_labels=data.val_labels[:40],
        val_fine=data.val_fine.some(np.arange(30)),
        val_coarse=data.val_coarse.some(np.arange(0, len(data.val_coarse), 7)),
    )


@pytest.fixture(scope="session")
def tiny_images(tiny_data: SearchData) -> ImageSource:
    import torch

    from lmoe_tune.data.image_source import ImageSource

    return ImageSource(tiny_data, torch.device("cpu"))
