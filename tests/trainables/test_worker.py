"""A worker's steps without Ray: what it reports of every kind of error."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lmoe_tune.errors import (
    BaselineError,
    DeviceMemoryError,
    StorageError,
    TrainingError,
    UsageError,
)
from trainables import worker as module
from trainables.failure import MESSAGE_CHARS, TRACEBACK_CHARS, message_of, printable, traceback_of
from trainables.worker import Report, TrialWorker

EPOCH = SimpleNamespace(epoch=1, metrics={"val_auroc": 0.9}, baseline={"val_auroc": 0.8})


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class AcceleratorError(RuntimeError):
    """Called like torch's own."""


@pytest.fixture
def step() -> Iterator[Callable[..., Report]]:
    """One step of a worker whose trial does this; without `setup`, which is for a process of its own."""
    logger = logging.getLogger("lmoe_tune")
    logger.addHandler(module._notes)
    module._notes.take()

    def make(trial: Callable[[], Any], **config: Any) -> Report:
        class Worker(TrialWorker):
            def start(self) -> Iterator[Any]:
                yield trial()

        worker = object.__new__(Worker)
        worker.config = {"trial": 7, **config}
        worker._epochs = None
        worker._held_since = time.monotonic()
        report: Report = worker.step()["report"]
        off_ms = abs(report.time_ms - 1000 * time.time())
        assert off_ms < 60_000 or config.get("ended")
        metrics = {name: of for name, of in report.metrics.items() if name != "reserved_s"}
        return replace(report, time_ms=0, metrics=metrics)

    yield make
    logger.removeHandler(module._notes)


def raising(error: BaseException) -> Callable[[], Any]:
    def trial() -> None:
        raise error

    return trial


def test_an_epoch_is_reported(step: Any) -> None:
    assert step(lambda: EPOCH) == Report(7, 1, EPOCH.metrics, EPOCH.baseline)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such margin"),
        MemoryError(),
        RecursionError("too deep"),
        SystemExit(3),
        KeyboardInterrupt(),
        TrainingError("epoch 1: train_loss is nan"),
        PermissionError(errno.EACCES, "a file of the method's own"),
        Unprintable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_trial_raises_is_its_own_failure_with_its_traceback(
    step: Any, error: BaseException
) -> None:
    report = step(raising(error))
    assert report.failure
    assert "in trial" in report.traceback
    assert not report.ends_sweep


@pytest.mark.parametrize(
    "error",
    [BaselineError("b"), UsageError("cannot import 'mine'"), StorageError("disk full: make room")],
)
def test_what_every_other_trial_would_meet_too_ends_the_sweep(step: Any, error: Exception) -> None:
    report = step(raising(error))
    assert report.ends_sweep
    assert report.failure == str(error)


def test_a_lost_gpu_context_ends_the_process_and_so_is_retried(step: Any) -> None:
    with pytest.raises(AcceleratorError):
        step(raising(AcceleratorError("CUDA error: an illegal memory access was encountered")))


def test_what_is_warned_of_comes_with_the_report_once(step: Any) -> None:
    def warns() -> Any:
        logging.getLogger("lmoe_tune.checkpoint").warning("epoch-0002.pt: damaged\x1b[31m")
        return EPOCH

    assert step(warns).notes == ("epoch-0002.pt: damaged\\x1b[31m",)
    assert step(lambda: EPOCH).notes == ()


def test_warnings_without_end_are_bounded(step: Any) -> None:
    def warns() -> Any:
        for number in range(50):
            logging.getLogger("lmoe_tune").warning("%d %s", number, "x" * 10_000)
        raise ValueError

    report = step(warns)
    assert report.failure == "ValueError"
    assert len(report.notes) == module._Notes.MOST
    assert max(map(len, report.notes)) < 2 * MESSAGE_CHARS


@pytest.fixture
def on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], TrialWorker]:
    """A worker of a run that checks its nodes, and that finds these faults here."""

    def make(faults: list[str]) -> TrialWorker:
        place = module.Place("id", "one", "cpu", None)
        spec = SimpleNamespace(train=SimpleNamespace(device="cpu"))
        monkeypatch.setattr(module, "_fit", set())
        monkeypatch.setattr(module, "read_spec", lambda config: spec)
        monkeypatch.setattr(module.handshake, "faults", lambda *arguments: list(faults))
        monkeypatch.setattr(module.handshake, "device_faults", lambda spec: [])
        monkeypatch.setattr(module.handshake, "place", lambda device=None: place)
        monkeypatch.setattr(TrialWorker, "start", lambda self: iter([EPOCH, EPOCH]))
        worker = object.__new__(TrialWorker)
        worker.config = {
            "trial": 7, "nonce": "n", "sweep": "/s", "home": "/h", "import_path": "/",
        }  # fmt: skip
        worker._epochs, worker._held_since = None, time.monotonic()
        return worker

    return make


def test_a_process_says_where_it_is_once_before_anything_is_trained(on_a_cluster: Any) -> None:
    worker = on_a_cluster([])
    greeting, first = worker.step()["report"], worker.step()["report"]
    assert greeting.is_greeting and greeting.place.host == "one" and not greeting.metrics
    assert first.epoch == 1 and first.place == greeting.place
    worker.reset_config(worker.config)
    assert worker.step()["report"].epoch == 1, "its next trial begins at once"


def test_a_process_that_is_not_fit_trains_nothing(on_a_cluster: Any) -> None:
    worker = on_a_cluster(["it does not see the home /h"])
    for _ in range(2):
        report = worker.step()["report"]
        assert report.unfit == ("it does not see the home /h",)
        assert report.epoch == 0


def test_the_time_that_a_slot_was_held_is_counted_from_epoch_to_epoch(
    on_a_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 112.0])
    worker = on_a_cluster([])
    worker._held_since = 10.0
    worker.step()
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    held = [worker.step()["report"].metrics["reserved_s"] for _ in range(2)]
    assert held == [90.0, 12.0]


def test_a_trial_that_is_over_is_not_trained(step: Any) -> None:
    assert step(raising(AssertionError("it was")), ended=True) == Report(7)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("plain"), "ValueError: plain"),
        (ValueError(), "ValueError"),
        (TrainingError("our own"), "our own"),
        (Unprintable(), "Unprintable: its text cannot be made"),
        (ValueError("\x1b[2J\udcff\0"), "ValueError: \\x1b[2J\\udcff\\x00"),
        (ValueError("two\nlines and a ü"), "ValueError: two\nlines and a ü"),
    ],
)
def test_a_message_can_be_printed_and_kept(error: Exception, said: str) -> None:
    assert message_of(error) == said
    message_of(error).encode()


def test_a_huge_message_keeps_both_ends_and_says_how_much_is_missing() -> None:
    text = printable("a" * 5000 + "b" * 5000, 100)
    assert text.startswith("a" * 50) and text.endswith("b" * 50)
    assert "(9900 characters)" in text


def test_a_traceback_is_bounded_even_of_an_exception_without_text() -> None:
    for error in (Unprintable(), ValueError("x" * 1_000_000)):
        try:
            raise error
        except Exception as caught:
            text = traceback_of(caught)
        assert "test_a_traceback_is_bounded" in text
        assert len(text) < 2 * TRACEBACK_CHARS


@pytest.mark.parametrize("is_lost", [True, False])
def test_any_error_after_which_the_gpu_answers_no_more_ends_the_process(
    step: Any, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """cuBLAS and cuDNN have errors of their own for a lost context."""
    import torch

    def synchronize() -> None:
        if is_lost:
            raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    failing = raising(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    if is_lost:
        with pytest.raises(RuntimeError, match="cuDNN"):
            step(failing)
    else:
        assert "cuDNN" in str(step(failing).failure)


def test_running_out_of_memory_is_reported_as_that(step: Any) -> None:
    assert step(raising(DeviceMemoryError("80 GB do not suffice"))).out_of_memory
    baseline = step(raising(BaselineError("80 GB do not suffice")))
    assert baseline.ends_sweep and not baseline.out_of_memory
