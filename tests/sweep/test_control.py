"""The control without Ray: what its hooks would call, called by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep import control as module
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.guard import LEAVE_S
from lmoe_tune.sweep.ledger import Ledger, Suggestion, system_ms
from lmoe_tune.sweep.lines import LedgerError
from trainables.handshake import Place
from trainables.worker import Report

MakeControl = Callable[..., SweepControl]


class Watcher:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_start(self, trial: TrialRecord) -> None:
        self.seen.append(("start", trial.number))

    def on_epoch(self, trial: TrialRecord) -> None:
        self.seen.append(("epoch", trial.number, len(trial.epochs)))

    def on_end(self, trial: TrialRecord) -> None:
        self.seen.append(("end", trial.number, trial.state))

    def on_message(self, text: str) -> None:
        self.seen.append(text)


@pytest.fixture
def control(ledger: Callable[..., Ledger]) -> MakeControl:
    def make(*overrides: str) -> SweepControl:
        written = ledger("search.pruner=none", *overrides)
        return SweepControl(written, Watcher(), import_path=Path("/specs"))

    return make


def seen(control: SweepControl) -> list[Any]:
    observer: Any = control.observer
    found: list[Any] = observer.seen
    return found


def start(control: SweepControl) -> Suggestion:
    suggestion = control.ledger.ask()
    control.on_start(suggestion)
    return suggestion


def epoch(number: int, epoch: int, auroc: float = 0.9) -> Report:
    metrics = {"val_auroc": auroc, "val_accuracy": 0.95, "reserved_s": 1.0}
    return Report(number, epoch, metrics, {"val_accuracy": 0.95})


def put_checkpoint(control: SweepControl, number: int) -> Path:
    folder = control.ledger.folder.checkpoints(number)
    folder.mkdir(parents=True)
    path = folder / "epoch-0003-0123456789abcdef.pt"
    path.write_bytes(b"x")
    return path


def test_a_trial_goes_from_start_to_end(control: MakeControl) -> None:
    running = control()
    start(running)
    assert [running.on_report(epoch(0, number)) for number in (1, 2, 3)] == [False, False, True]
    assert seen(running) == [("start", 0), ("epoch", 0, 1), ("epoch", 0, 2), ("end", 0, "complete")]


def test_a_worker_is_told_where_everything_is(control: MakeControl) -> None:
    running = control()
    suggestion = start(running)
    folder = running.ledger.folder
    sign = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
    assert running.worker_config(suggestion) == {
        "candidates": None,
        "nonce": sign["nonce"],
        "home": str(folder.home),
        "sweep": str(folder.path),
        "import_path": "/specs",
        "trial": 0,
        "params": suggestion.params,
    }


def test_a_failure_that_is_reported_ends_the_trial_and_not_the_sweep(control: MakeControl) -> None:
    running = control()
    start(running)
    assert (
        running.on_report(Report(0, failure="epoch 1: train_loss is nan", traceback="the trace"))
        is True
    )
    trial = running.ledger.trial(0)
    assert (trial.state, trial.failure, trial.traceback) == (
        "failed",
        "epoch 1: train_loss is nan",
        "the trace",
    )
    assert not running.stopping
    assert seen(running)[-1] == ("end", 0, "failed")


def test_a_failure_of_the_baseline_ends_the_sweep_and_no_trial(control: MakeControl) -> None:
    running = control()
    start(running)
    with running.fatal_errors():
        running.on_report(Report(0, failure="the baseline cannot be trained", ends_sweep=True))
    assert isinstance(running.fatal, LmoeTuneError)
    assert running.stopping
    assert running.ledger.trial(0).state == "running", "it goes on once the cause is fixed"


def test_once_it_stops_nothing_more_is_recorded(control: MakeControl) -> None:
    running = control()
    start(running)
    running.on_report(epoch(0, 1))
    running.interrupted = True
    assert running.on_report(epoch(0, 2)) is True
    assert running.on_process_died(0) is True
    trial = running.ledger.trial(0)
    assert trial.state == "running" and len(trial.epochs) == 1


def test_a_process_that_died_is_counted_and_said(control: MakeControl) -> None:
    running = control()
    start(running)
    running.on_process_died(0)
    assert running.ledger.trial(0).state == "running"
    assert "trial 0: its process died" in seen(running)[-1]


def test_a_process_that_died_too_often_fails_the_trial(control: MakeControl) -> None:
    running = control("resources.max_retries=1")
    start(running)
    assert [running.on_process_died(0) for _ in range(2)] == [False, True]
    assert (
        running.ledger.trial(0).failure == "its process died 2 times (resources.max_retries is 1)"
    )
    assert seen(running)[-1] == ("end", 0, "failed")


def test_when_the_time_is_up_the_running_trials_end_at_their_last_epoch(
    control: MakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = control("budget.time=1h")
    monkeypatch.setattr(Ledger, "wall_s", lambda ledger: 3599.0)
    for _ in range(2):
        start(running)
    running.on_report(epoch(1, 1))
    assert not running.time_is_up()
    monkeypatch.setattr(Ledger, "wall_s", lambda ledger: 3600.0)
    assert running.time_is_up()
    assert running.ledger.trial(1).state == "pruned"
    assert running.ledger.trial(1).ended_by == "the sweep's time is used up"


def test_a_trial_whose_time_is_up_before_its_first_epoch_does_not_count_as_gone_wrong(
    control: MakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = control("budget.time=5s", "budget.max_failed=0")
    start(running)
    assert not running.ledger.is_complete(), "it runs"
    monkeypatch.setattr(Ledger, "wall_s", lambda ledger: 5.0)
    assert running.time_is_up()
    assert running.ledger.is_complete() and running.ledger.unfinished() == []
    assert running.ledger.trial(0).state == "pruned"
    assert running.ledger.usage().failed == 0, "more failed trials than allowed is exit code 3"


def test_without_a_budget_of_time_it_is_never_up(control: MakeControl) -> None:
    assert not control().time_is_up()


def test_gpu_hours_that_are_used_up_end_the_running_trials(control: MakeControl) -> None:
    running = control("resources.gpu=1", "budget.gpu_hours=0.0001")
    start(running)
    assert not running.time_is_up()
    running.on_report(epoch(0, 1))
    assert running.time_is_up()
    assert running.ledger.trial(0).ended_by is not None


def test_the_checkpoints_of_a_trial_that_the_ledger_has_lost_are_not_continued_from(
    control: MakeControl,
) -> None:
    before = control("search.start_from=[{mixing_alpha: 1.0}, {mixing_alpha: 2.0}]")
    start(before)
    known, waiting, lost = (put_checkpoint(before, number).parent for number in (0, 1, 7))
    control("search.start_from=[{mixing_alpha: 1.0}, {mixing_alpha: 2.0}]")
    assert known.is_dir() and not lost.exists()
    assert not waiting.exists()


def test_only_the_checkpoints_of_the_best_trials_stay(control: MakeControl) -> None:
    running = control("tracking.best_checkpoints=2")
    paths = []
    for number, auroc in enumerate((0.7, 0.9, 0.8, 0.6)):
        start(running)
        paths.append(put_checkpoint(running, number))
        for count in (1, 2, 3):
            running.on_report(epoch(number, count, auroc))
    start(running)
    paths.append(put_checkpoint(running, 4))
    running.on_report(Report(4, failure="no"))
    assert [path.exists() for path in paths] == [False, True, True, False, False]


def test_those_of_running_trials_stay_as_well(control: MakeControl) -> None:
    running = control("tracking.best_checkpoints=1")
    start(running)
    start(running)
    path = put_checkpoint(running, 1)
    running.on_report(Report(0, failure="no"))
    assert path.exists()


@pytest.mark.parametrize(
    "error", [LmoeTuneError("no space left"), KeyboardInterrupt(), AssertionError()]
)
def test_what_a_hook_raises_is_kept_and_stops_the_sweep(
    control: MakeControl, error: BaseException
) -> None:
    running = control()
    with running.fatal_errors():
        raise error
    assert running.fatal is error
    assert running.stopping
    with running.fatal_errors():
        raise ZeroDivisionError
    assert running.fatal is error, "the first one is the cause"


def test_deaths_of_a_process_are_counted_over_all_runs(control: MakeControl) -> None:
    limit = "resources.max_retries=2"
    start(control(limit))
    assert [control(limit).on_process_died(0) for _ in range(3)] == [False, False, True]
    assert (
        control(limit).ledger.trial(0).failure
        == "its process died 3 times (resources.max_retries is 2)"
    )


def test_a_process_that_dies_with_its_node_counts_only_when_that_goes_on_and_on(
    control: MakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NODE_DEATHS", 2)
    running = control("resources.max_retries=0")
    start(running)
    assert [running.on_process_died(0, with_node=True) for _ in range(3)] == [False, False, True]
    assert seen(running)[1:3] == ["trial 0: its node died; it continues on another one"] * 2
    assert running.ledger.trial(0).state == "failed"


def greeting(number: int, host: str = "one", *, ahead_s: float = 0.0, **more: Any) -> Report:
    place = Place(f"id-of-{host}", host, "cpu", more.pop("gpu", None))
    return Report(number, place=place, time_ms=system_ms() + round(1000 * ahead_s), **more)


def test_where_a_trial_runs_is_known_before_its_first_epoch(control: MakeControl) -> None:
    running = control()
    start(running)
    assert running.on_report(greeting(0)) is False
    path = running.ledger.folder.trial(0) / "trial.json"
    assert json.loads(path.read_text(encoding="utf-8"))["host"] == "one"
    assert running.on_report(epoch(0, 1)) is False


def test_an_epoch_and_where_it_was_trained_are_one_transaction_and_rename_no_file_again(
    control: MakeControl,
) -> None:
    running = control("search.pruner=none")
    start(running)
    ledger = running.ledger.folder.ledger

    def transactions() -> int:
        lines = ledger.read_text(encoding="utf-8").splitlines()
        return sum(json.loads(line)["left"] == 0 for line in lines)

    before, place = transactions(), Place("id-of-one", "one", "cpu", None)
    path = running.ledger.folder.trial(0) / "trial.json"
    written = [(0, path.stat().st_ino)]
    checkpoints = running.ledger.folder.checkpoints(0)
    checkpoints.mkdir()
    for number in (1, 2):
        (checkpoints / f"epoch-{number:04d}-0123456789abcdef.pt").touch()
        running.on_report(replace(epoch(0, number), place=place))
        written.append((transactions() - before, path.stat().st_ino))
    assert [count for count, _ in written] == [0, 1, 2]
    assert len({inode for _, inode in written}) == 1, "what an epoch says is in metrics.jsonl"
    assert running.ledger.trial(0).host == "one"
    running.on_report(Report(trial=0, epoch=3, failure="diverged"))
    assert json.loads(path.read_text(encoding="utf-8"))["host"] == "one"
    epochs = (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["epoch"] for line in epochs] == [1, 2]


def test_a_node_that_is_not_fit_gives_its_trial_back_and_is_named_once(
    control: MakeControl,
) -> None:
    running = control()
    for number in (0, 1):
        start(running)
        unfit = ("it runs other code: trainables/worker.py differs",)
        assert running.on_report(greeting(number, unfit=unfit)) is True
    assert list(running.handed_back) == [0, 1]
    assert [running.ledger.trial(number).state for number in (0, 1)] == ["running"] * 2
    assert [text for text in seen(running) if isinstance(text, str)] == [
        "node one is left out: it runs other code: trainables/worker.py differs; its trials go elsewhere"
    ]


@pytest.mark.parametrize(("ahead_s", "said"), [(330.0, "5m"), (-330.0, "5m"), (60.0, None)])
def test_a_node_whose_clock_is_minutes_off_is_left_out_before_its_first_epoch(
    control: MakeControl, ahead_s: float, said: str | None
) -> None:
    running = control()
    start(running)
    assert running.on_report(greeting(0, ahead_s=ahead_s)) is (said is not None)
    if said is not None:
        assert f"node one is left out: its clock is {said}" in seen(running)[-1]


def test_an_answer_that_was_long_on_its_way_is_no_fault_of_the_clock(
    control: MakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = control()
    start(running)
    report = greeting(0)
    hour_later = system_ms() + 3_600_000
    monkeypatch.setattr(module, "system_ms", lambda: hour_later)
    assert running.on_report(report) is False
    assert running.on_report(replace(epoch(0, 1), time_ms=system_ms())) is False


def test_gpus_of_two_kinds_are_said_once(control: MakeControl) -> None:
    running = control()
    for number, gpu in enumerate(("H100", "A100", "H100")):
        start(running)
        running.on_report(greeting(number, f"node{number}", gpu=gpu))
    said = [text for text in seen(running) if isinstance(text, str)]
    assert len(said) == 1
    assert "different GPUs (H100, A100)" in said[0] and "last bits" in said[0]
    assert running.ledger.trial(1).gpu == "A100"


def failed(number: int) -> Report:
    return Report(number, failure="ValueError: no such margin", traceback="the trace")


def test_several_failures_before_any_epoch_stop_the_sweep_whatever_max_failed_says(
    control: MakeControl,
) -> None:
    running = control("budget.trials=50", "budget.max_failed=50")
    for number in range(module.SEVERAL):
        assert running.fatal is None
        start(running)
        running.on_report(greeting(number))
        with running.fatal_errors():
            running.on_report(failed(number))
    assert "4 trials failed before any had an epoch" in str(running.fatal)
    assert "no such margin" in str(running.fatal) and "lmoe-tune resume small" in str(running.fatal)


def test_processes_that_die_before_any_epoch_stop_it_as_well(control: MakeControl) -> None:
    running = control("budget.trials=50", "budget.max_failed=50", "resources.max_retries=0")
    for number in range(module.SEVERAL):
        assert running.fatal is None
        start(running)
        with running.fatal_errors():
            running.on_process_died(number)
    assert "its process died 1 times" in str(running.fatal)


def test_failures_after_an_epoch_are_counted_by_max_failed_alone(control: MakeControl) -> None:
    running = control("budget.trials=50", "budget.max_failed=50")
    start(running)
    running.on_report(epoch(0, 1))
    for number in range(1, 2 * module.SEVERAL):
        start(running)
        running.on_report(failed(number))
    assert running.fatal is None


def test_what_a_worker_warned_of_is_said_once_and_kept_in_the_records(control: MakeControl) -> None:
    running = control()
    for number in (0, 1):
        start(running)
        running.on_report(replace(epoch(number, 1), notes=("a checkpoint is damaged",)))
    said = [text for text in seen(running) if isinstance(text, str)]
    assert said == ["trial 0: a checkpoint is damaged"]
    for number in (0, 1):
        record = json.loads(
            (running.ledger.folder.trial(number) / "trial.json").read_text(encoding="utf-8")
        )
        assert record["notes"] == ["a checkpoint is damaged"]


def test_when_ray_has_died_the_run_ends_with_how_to_resume_and_the_ledger_can_be_written(
    control: MakeControl,
) -> None:
    running = control()
    start(running)
    assert running.on_cluster_lost("Ray's head has died") == LEAVE_S
    assert running.stopping and running.can_record
    assert "Ray's head has died" in str(running.fatal) and "lmoe-tune resume small" in str(
        running.fatal
    )
    assert running.on_process_died(0) is True
    assert running.ledger.trial(0).retries == 0, "it was not the trial's process that died"


def test_a_ledger_whose_memory_is_ahead_of_its_file_is_not_written_any_more(
    control: MakeControl,
) -> None:
    running = control()
    with running.fatal_errors():
        raise LedgerError("no space left")
    assert not running.can_record
