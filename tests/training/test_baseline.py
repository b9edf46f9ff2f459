from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lmoe_tune
from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.errors import TrainingError
from lmoe_tune.spec import Spec, resolved_yaml
from lmoe_tune.training import baseline
from lmoe_tune.training.baseline import Baseline, acquire_baseline
from lmoe_tune.training.baseline_record import (
    RECORD,
    baseline_folder,
    baseline_key,
    read_baseline_record,
)

MakeSpec = Callable[..., Spec]
TIMINGS = {"epoch_s", "images_per_s"}


@pytest.fixture
def spec(make_spec: MakeSpec) -> Spec:
    return make_spec("model.baseline.epochs=3")


@pytest.fixture
def acquire(
    spec: Spec, tiny_data: SearchData, tiny_images: ImageSource, tmp_path: Path
) -> Callable[..., Baseline]:
    def acquire(spec: Spec = spec, home: Path = tmp_path / "home") -> Baseline:
        return acquire_baseline(spec, tiny_data, tiny_images, home)

    return acquire


class Killed(BaseException):
    """Stands for the death of the process."""


class Epochs:
    """Counts the epochs trained, and dies before a given one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[int] = []
        self.die_before: int | None = None
        self._train = baseline.train
        monkeypatch.setattr(baseline, "train", self._counting)

    def _counting(self, *args: Any, **more: Any) -> Iterator[Any]:
        for result in self._train(*args, **more):
            if result.epoch == self.die_before:
                raise Killed
            self.trained.append(result.epoch)
            yield result


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> Epochs:
    return Epochs(monkeypatch)


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMINGS}


def same_bits(first: Baseline, second: Baseline) -> bool:
    assert first.model.keys() == second.model.keys()
    return numbers(first.metrics) == numbers(second.metrics) and all(
        torch.equal(tensor, second.model[name]) for name, tensor in first.model.items()
    )


def folder_of(spec: Spec, data: SearchData, home: Path) -> Path:
    return baseline_folder(home, baseline_key(spec, data.fingerprint))


# --- trained once ---


def test_it_is_trained_once_and_then_loaded(
    acquire: Callable[..., Baseline], epochs: Epochs
) -> None:
    first = acquire()
    assert epochs.trained == [1, 2, 3]
    second = acquire()
    assert epochs.trained == [1, 2, 3]
    assert same_bits(first, second)
    assert first.key == second.key
    assert first.metrics == second.metrics


def test_homes_do_not_share_it_but_give_the_same_bits(
    acquire: Callable[..., Baseline], epochs: Epochs, tmp_path: Path
) -> None:
    first = acquire()
    torch.manual_seed(1234)
    second = acquire(home=tmp_path / "elsewhere")
    assert epochs.trained == [1, 2, 3, 1, 2, 3]
    assert same_bits(first, second)


def test_its_metrics_are_those_of_its_last_epoch(
    acquire: Callable[..., Baseline], tmp_path: Path
) -> None:
    found = acquire()
    record = read_baseline_record(tmp_path / "home", found.key)
    assert record is not None
    assert record["epochs"][-1]["metrics"] == found.metrics
    assert "val_accuracy" in found.metrics


# --- continued ---


@pytest.mark.parametrize("die_before", [1, 2, 3])
def test_one_killed_half_way_is_continued_to_the_same_bits(
    acquire: Callable[..., Baseline], epochs: Epochs, tmp_path: Path, die_before: int
) -> None:
    whole = acquire(home=tmp_path / "whole")
    epochs.trained.clear()
    epochs.die_before = die_before
    with pytest.raises(Killed):
        acquire()
    epochs.die_before = None
    continued = acquire()
    assert epochs.trained == [1, 2, 3]
    assert same_bits(whole, continued)


def test_with_a_damaged_newest_checkpoint_it_continues_from_the_one_before(
    acquire: Callable[..., Baseline],
    epochs: Epochs,
    spec: Spec,
    tiny_data: SearchData,
    tmp_path: Path,
) -> None:
    first = acquire()
    newest = checkpoint.list_newest_first(folder_of(spec, tiny_data, tmp_path / "home"))[0]
    newest.write_bytes(newest.read_bytes()[:100])
    epochs.trained.clear()
    again = acquire()
    assert epochs.trained == [3]
    assert same_bits(first, again)


def test_only_two_checkpoints_are_kept(
    acquire: Callable[..., Baseline], spec: Spec, tiny_data: SearchData, tmp_path: Path
) -> None:
    acquire()
    assert len(checkpoint.list_newest_first(folder_of(spec, tiny_data, tmp_path / "home"))) == 2


# --- recorded ---


def test_the_record_tells_settings_state_and_epochs(
    acquire: Callable[..., Baseline],
    epochs: Epochs,
    spec: Spec,
    tiny_data: SearchData,
    tmp_path: Path,
) -> None:
    home, key = tmp_path / "home", baseline_key(spec, tiny_data.fingerprint)
    assert read_baseline_record(home, key) is None
    epochs.die_before = 3
    with pytest.raises(Killed):
        acquire()
    record = read_baseline_record(home, key)
    assert record is not None
    assert record["state"] == "running"
    assert record["key"] == key
    assert record["params"] == {
        "arch": "small_cnn",
        "epochs": 3,
        "lr": 0.1,
        "weight_decay": 1e-4,
        "batch_size": 32,
    }
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]

    epochs.die_before = None
    acquire()
    finished = read_baseline_record(home, key)
    assert finished is not None
    assert finished["state"] == "complete"
    assert [epoch["epoch"] for epoch in finished["epochs"]] == [1, 2, 3]
    assert finished["epochs"][:2] == record["epochs"], "what was recorded once stays"
    assert finished["started_ms"] == record["started_ms"]
    times = [finished["started_ms"], *(epoch["time_ms"] for epoch in finished["epochs"])]
    assert times == sorted(times)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_record_that_a_kill_left_behind_is_caught_up(
    acquire: Callable[..., Baseline],
    spec: Spec,
    tiny_data: SearchData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    """Killed when an epoch's checkpoint was written and its record not yet."""
    write = baseline.write_durably
    written: list[Path] = []

    def dying(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == epoch:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(baseline, "write_durably", dying)
        with pytest.raises(Killed):
            acquire()
    found = acquire()
    record = read_baseline_record(tmp_path / "home", found.key)
    assert record is not None
    assert [entry["epoch"] for entry in record["epochs"]] == [1, 2, 3]
    assert record["state"] == "complete"


@pytest.mark.parametrize("damage", [None, b"", b"\xff\x00", b"{"])
def test_a_record_that_is_gone_or_damaged_is_written_again(
    damage: bytes | None, acquire: Callable[..., Baseline], tmp_path: Path
) -> None:
    first = acquire()
    path = baseline_folder(tmp_path / "home", first.key) / RECORD
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert same_bits(first, acquire())
    assert path.read_bytes() == whole


# --- several at once ---


def test_two_that_ask_at_once_train_it_once(
    acquire: Callable[..., Baseline], epochs: Epochs
) -> None:
    start, found = threading.Barrier(2), []

    def ask() -> None:
        start.wait()
        found.append(acquire())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert epochs.trained == [1, 2, 3]
    assert same_bits(*found)


ASK = """
import sys, time, torch
from pathlib import Path
from lmoe_tune.data import load_search_data
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.spec import spec_from_resolved
from lmoe_tune.training import baseline

home, start = Path(sys.argv[1]), Path(sys.argv[2])
spec = spec_from_resolved((home / "spec.yaml").read_text())
torch.set_num_threads(1)
data = load_search_data(spec.data)
images = ImageSource(data, torch.device("cpu"))
trained, train = [], baseline.train
def counting(*args, **more):
    for result in train(*args, **more):
        trained.append(result.epoch)
        yield result
baseline.train = counting
(start / sys.argv[3]).touch()
while len(list(start.iterdir())) < 2:
    time.sleep(0.01)
found = baseline.acquire_baseline(spec, data, images, home)
print(trained, found.key, found.metrics["train_loss"])
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_processes_that_ask_at_once_train_it_once(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(resolved_yaml(make_spec()), encoding="utf-8")
    (tmp_path / "start").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path), str(tmp_path / "start"), name],
            cwd=Path(lmoe_tune.__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for name in ("one", "two")
    ]
    said = sorted(process.communicate(timeout=80)[0].strip() for process in processes)
    assert said[0].startswith("[1, 2] ")
    assert said[1].startswith("[] ")
    assert said[0].removeprefix("[1, 2]") == said[1].removeprefix("[]")


# --- the key ---

DEPENDS_ON = [
    "model.baseline.epochs=4",
    "model.baseline.lr=0.2",
    "model.baseline.weight_decay=0.001",
    "model.baseline.batch_size=16",
    "train.min_lr=0.00001",
    "train.momentum=0.8",
    "train.precision=bf16",
    "train.threads=2",
    "train.seed=1",
    "search.seed=1",  # from which the training's seed is taken
    "objective.score=energy",
]
INDEPENDENT_OF = [
    "train.lr=0.5",
    "train.epochs=7",
    "train.batch_size=8",
    "train.weight_decay=0.5",
    "space={mixing_alpha: {low: 0.5, high: 2}}",
    "fixed={mix_weight: 0.5}",
    "objective.metric=val_fine_auroc",
    "search.sampler=random",
    "budget.trials=3",
    "tracking.experiment=other",
    "name=other",
]


@pytest.mark.parametrize("override", DEPENDS_ON)
def test_the_key_changes_with_what_the_baseline_depends_on(
    make_spec: MakeSpec, override: str
) -> None:
    assert baseline_key(make_spec(override), "data") != baseline_key(make_spec(), "data")


def test_the_keys_of_different_baselines_all_differ(make_spec: MakeSpec) -> None:
    keys = {
        baseline_key(make_spec(override), "data")
        for override in DEPENDS_ON
        if "search" not in override
    }
    assert len(keys) == len(DEPENDS_ON) - 1


@pytest.mark.parametrize("override", INDEPENDENT_OF)
def test_the_key_stays_with_what_it_does_not_depend_on(make_spec: MakeSpec, override: str) -> None:
    assert baseline_key(make_spec(override), "data") == baseline_key(make_spec(), "data")


def test_the_key_changes_with_the_data(make_spec: MakeSpec) -> None:
    assert baseline_key(make_spec(), "data") != baseline_key(make_spec(), "other data")


def test_a_key_is_a_short_folder_name(make_spec: MakeSpec, tmp_path: Path) -> None:
    key = baseline_key(make_spec(), "data")
    assert len(key) == 16
    assert key.isalnum()
    assert baseline_folder(tmp_path, key) == tmp_path / "baselines" / key


# --- what can go wrong ---


def test_a_baseline_that_cannot_be_trained_says_where_to_look(
    acquire: Callable[..., Baseline], make_spec: MakeSpec
) -> None:
    with pytest.raises(
        TrainingError, match=r"the baseline cannot be trained: epoch 1.*model\.baseline"
    ):
        acquire(make_spec("model.baseline.lr=1e30"))


def test_a_classifier_of_ones_own_is_taken_as_it_is(
    acquire: Callable[..., Baseline],
    epochs: Epochs,
    make_spec: MakeSpec,
    tiny_data: SearchData,
    tmp_path: Path,
) -> None:
    trained = acquire()
    path = tmp_path / "mine.pt"
    torch.save(trained.model, path)
    spec = make_spec("model.baseline.epochs=0", f"model.weights={path}")
    epochs.trained.clear()
    given = acquire(spec)
    assert not epochs.trained
    assert all(torch.equal(value, trained.model[name]) for name, value in given.model.items())
    assert given.metrics == {name: trained.metrics[name] for name in given.metrics}
    record = read_baseline_record(tmp_path / "home", given.key)
    assert record is not None
    assert record["state"] == "complete"
    assert [epoch["metrics"] for epoch in record["epochs"]] == [given.metrics]
    again = acquire(spec)
    assert (again.key, again.metrics) == (given.key, given.metrics)

    torch.save({name: value + 1 for name, value in trained.model.items()}, path)
    assert baseline_key(spec, tiny_data.fingerprint) != given.key, (
        "another content is another baseline"
    )


def test_a_baseline_is_trained_from_weights_of_ones_own(
    acquire: Callable[..., Baseline], make_spec: MakeSpec, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pt"
    torch.save(acquire().model, path)
    found = acquire(make_spec("model.baseline.epochs=1", f"model.weights={path}"))
    cold = acquire(make_spec("model.baseline.epochs=1"))
    assert found.metrics["train_loss"] < cold.metrics["train_loss"]
