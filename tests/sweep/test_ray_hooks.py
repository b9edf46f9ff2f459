"""Searcher, scheduler and watch as Tune would call them, without Tune."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from lmoe_tune.sweep import cluster
from lmoe_tune.sweep import watch as watch_module
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.guard import Vitals
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.nodes import Capacity
from lmoe_tune.sweep.scheduler import LedgerScheduler
from lmoe_tune.sweep.searcher import LedgerSearcher
from lmoe_tune.sweep.watch import LeaveLoop, Watch
from lmoe_tune.training.baseline_record import RECORD, baseline_folder
from tests.sweep.conftest import BASELINE
from trainables.worker import Report

QUIET: Any = SimpleNamespace(
    on_start=lambda trial: None,
    on_epoch=lambda trial: None,
    on_end=lambda trial: None,
    on_message=lambda text: None,
)
NO_PROJECTOR: Any = SimpleNamespace(collect=lambda: None)
CLUSTER: Any = SimpleNamespace(
    local=False,
    stays=False,
    capacities=lambda: {"one": Capacity(4.0, 0.0)},
    share=lambda slots: slots,
)


@pytest.fixture
def control(ledger: Callable[..., Ledger]) -> Callable[..., SweepControl]:
    def make(*overrides: str) -> SweepControl:
        written = ledger("search.pruner=none", "train.epochs=2", *overrides)
        made = SweepControl(written, QUIET, import_path=Path("/specs"))
        made.slots = 4
        write_baseline(made, "complete")
        return made

    return make


def write_baseline(control: SweepControl, state: str) -> None:
    """The record of the sweep's baseline, as a worker leaves it in the home."""
    ledger = control.ledger
    ledger.set_attr("baseline", "0123")
    folder = baseline_folder(ledger.folder.home, "0123")
    folder.mkdir(parents=True, exist_ok=True)
    record = {"state": state, "epochs": [{"epoch": 1, "metrics": BASELINE}]}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")


def result(number: int, epoch: int) -> dict[str, Any]:
    metrics = {"val_auroc": 0.9, "val_accuracy": 0.95}
    return {"report": Report(number, epoch, metrics, {"val_accuracy": 0.95})}


def test_the_searcher_hands_out_what_the_budget_allows_and_then_finishes(control: Any) -> None:
    searcher = LedgerSearcher(control("budget.trials=2"))
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict) and isinstance(second, dict)
    assert (first["trial"], second["trial"]) == (0, 1)
    assert searcher.suggest("c") is None, "while one runs, it may have to be handed out again"
    for number in (0, 1):
        searcher._control.ledger.fail(number, "enough of it")
    assert searcher.suggest("c") == Searcher.FINISHED


def test_the_searcher_hands_out_unfinished_trials_first_even_when_the_budget_is_used_up(
    control: Any,
) -> None:
    killed = control("budget.trials=2")
    params = [killed.ledger.ask().params for _ in range(2)]
    searcher = LedgerSearcher(control("budget.trials=2"))
    again = [searcher.suggest(name) for name in "ab"]
    assert [(config["trial"], config["params"]) for config in again] == list(enumerate(params))
    assert searcher.suggest("c") is None


def test_the_searcher_finishes_when_somebody_asked_to_stop(control: Any) -> None:
    running = control()
    running.interrupted = True
    assert LedgerSearcher(running).suggest("a") == Searcher.FINISHED
    assert running.ledger.trials() == []


def test_what_the_searcher_raises_is_fatal_and_not_swallowed(
    control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = control()
    monkeypatch.setattr(running.ledger, "ask", lambda: 1 / 0)
    assert LedgerSearcher(running).suggest("a") == Searcher.FINISHED
    assert isinstance(running.fatal, ZeroDivisionError)


def test_the_scheduler_records_and_stops_a_trial_at_its_last_epoch(control: Any) -> None:
    running = control()
    LedgerSearcher(running).suggest("a")
    scheduler = LedgerScheduler(running)
    assert scheduler.on_trial_result(None, None, result(0, 1)) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, None, result(0, 2)) == TrialScheduler.STOP
    assert running.ledger.trial(0).state == "complete"


def test_what_the_scheduler_raises_is_fatal_and_stops_the_trial(control: Any) -> None:
    running = control()
    LedgerSearcher(running).suggest("a")
    assert LedgerScheduler(running).on_trial_result(None, None, result(0, 2)) == TrialScheduler.STOP
    assert isinstance(running.fatal, AssertionError), "epoch 2 is out of turn"
    assert LedgerSearcher(running).suggest("b") == Searcher.FINISHED


def dead(config: dict[str, Any], status: str) -> Any:
    """Tune's trial as its scheduler sees it after an error."""
    return SimpleNamespace(
        config=config, status=status, error_file="/nowhere", get_pickled_error=lambda: None
    )


def test_a_trial_whose_process_died_too_often_fails_and_is_not_handed_out_again(
    control: Any,
) -> None:
    running = control("budget.trials=1", "resources.max_retries=1")
    searcher, scheduler = LedgerSearcher(running), LedgerScheduler(running)
    config = searcher.suggest("a")
    scheduler.on_trial_error(None, dead(config, Trial.ERROR))
    assert running.ledger.study.trials[0].user_attrs["retries"] == 1
    assert running.ledger.trial(0).state == "running"
    scheduler.on_trial_error(None, dead(config, Trial.RUNNING))
    searcher.on_trial_complete("a", error=True)
    assert running.ledger.trial(0).state == "failed"
    assert searcher.suggest("b") == Searcher.FINISHED


def test_a_process_that_died_between_two_trials_is_counted_once_and_the_trial_goes_on(
    control: Any,
) -> None:
    """Tune tells of it twice, and gives the trial up (`TuneController._process_trial_failure`)."""
    running = control("budget.trials=1")
    searcher, scheduler = LedgerSearcher(running), LedgerScheduler(running)
    config = searcher.suggest("a")
    scheduler.on_trial_error(None, dead(config, Trial.ERROR))
    scheduler.on_trial_error(None, dead(config, Trial.PENDING))
    searcher.on_trial_complete("a", error=True)
    assert running.ledger.study.trials[0].user_attrs["retries"] == 1
    assert running.ledger.trial(0).state == "running"
    again = searcher.suggest("b")
    assert (again["trial"], again["params"]) == (0, config["params"])
    assert searcher.suggest("c") is None


def test_the_watch_leaves_the_loop_when_the_sweep_is_complete(control: Any) -> None:
    running = control("budget.trials=1")
    watch = Watch(running, NO_PROJECTOR, CLUSTER, {})
    LedgerSearcher(running).suggest("a")
    assert watch.stop_all() is False
    LedgerScheduler(running).on_trial_result(None, None, result(0, 1))
    LedgerScheduler(running).on_trial_result(None, None, result(0, 2))
    with pytest.raises(LeaveLoop):
        watch.stop_all()


@pytest.mark.parametrize("how", ["interrupted", "fatal"])
def test_the_watch_leaves_the_loop_when_it_must_stop(control: Any, how: str) -> None:
    running = control()
    setattr(running, how, True)
    with pytest.raises(LeaveLoop):
        Watch(running, NO_PROJECTOR, CLUSTER, {}).stop_all()


def test_on_a_ray_that_stays_tune_ends_what_it_has_started(control: Any) -> None:
    running = control()
    stays = SimpleNamespace(**vars(CLUSTER) | {"stays": True, "vitals": Vitals({})})
    watch = Watch(running, NO_PROJECTOR, stays, {})  # type: ignore[arg-type]
    assert watch.stop_all() is False
    running.interrupted = True
    assert watch.stop_all() is True
    stays.vitals.lost = "Ray's head has died"
    with pytest.raises(LeaveLoop):  # which could end nothing any more
        watch.stop_all()


def test_what_the_watch_meets_is_fatal_too(control: Any) -> None:
    running = control()
    with pytest.raises(LeaveLoop):
        Watch(running, SimpleNamespace(collect=lambda: 1 / 0), CLUSTER, {}).stop_all()  # type: ignore[arg-type]
    assert isinstance(running.fatal, ZeroDivisionError)


def test_tune_may_pickle_them_without_the_ledger(control: Any) -> None:
    running = control()
    for hook in (
        LedgerSearcher(running),
        LedgerScheduler(running),
        Watch(running, NO_PROJECTOR, CLUSTER, {}),
    ):
        assert len(pickle.dumps(hook)) < 200


@pytest.mark.parametrize(
    ("said", "retries"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR",
            1,
        ),
        ("The actor died because its node has died. Node Id: 1a3d", 0),
        (
            "The actor 67c0 is unavailable: The actor is temporarily unavailable: RpcError: Socket closed",
            0,
        ),
    ],
)
def test_a_process_that_died_with_its_node_is_told_from_one_that_died_alone(
    control: Any, tmp_path: Path, said: str, retries: int
) -> None:
    """In Ray's words, as Tune appends them to a trial's error file; the last one counts."""
    running = control()
    config = LedgerSearcher(running).suggest("a")
    trial = dead(config, Trial.ERROR)
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text(
        f"Failure # 1 (occurred at …)\nits node has died\nFailure # 2 (…)\n{said}\n",
        encoding="utf-8",
    )
    LedgerScheduler(running).on_trial_error(None, trial)
    assert running.ledger.trial(0).retries == retries


def test_a_trial_that_died_too_often_is_not_trained_even_where_ray_starts_it_again(
    control: Any,
) -> None:
    running = control("resources.max_retries=0")
    trial = dead(LedgerSearcher(running).suggest("a"), Trial.ERROR)
    LedgerScheduler(running).on_trial_error(None, trial)
    assert trial.config["ended"] is True
    assert trial.max_failures == 0


def test_waiting_for_room_in_the_cluster_is_said_once_and_so_is_its_end(
    control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    running = control("budget.trials=1")
    running.observer = SimpleNamespace(**vars(QUIET) | {"on_message": said.append})
    LedgerSearcher(running).suggest("a")
    trial = SimpleNamespace(status=Trial.PENDING)
    watch = Watch(running, NO_PROJECTOR, CLUSTER, {0: trial})
    watch.stop_all()
    assert said == ["2 trials at a time"]
    said.clear()
    monkeypatch.setattr(watch_module, "WAITING_S", -1.0)
    for _ in range(3):
        watch.stop_all()
    assert len(said) == 1 and "cpu 1 and gpu 0" in said[0]
    trial.status = Trial.RUNNING
    for _ in range(3):
        watch.stop_all()
    assert said[1:] == ["there is room again: the trials continue"]


@pytest.mark.parametrize(
    ("wanted", "local", "others", "handed_out"),
    [
        (8, False, 0, 5),  # one waits, so that an autoscaler adds a node for it
        (4, False, 0, 4),
        (3, False, 0, 3),
        (None, False, 0, 4),
        (8, True, 0, 4),
        (8, False, 1, 2),  # half of them are another sweep's
    ],
)
def test_one_trial_more_than_fits_is_handed_out_where_more_nodes_are_wanted(
    control: Any, wanted: int | None, local: bool, others: int, handed_out: int
) -> None:
    said: list[str] = []
    running = control(f"search.max_concurrent={json.dumps(wanted)}")
    running.observer = SimpleNamespace(**vars(QUIET) | {"on_message": said.append})
    cluster: Any = SimpleNamespace(
        local=local,
        stays=False,
        capacities=CLUSTER.capacities,
        share=lambda slots: -(-slots // (1 + others)),
    )
    Watch(running, NO_PROJECTOR, cluster, {}).stop_all()
    assert running.slots == handed_out
    assert said == [f"{min(handed_out, 4)} trials at a time"]


@pytest.mark.parametrize(
    ("override", "local", "early"),
    [
        ("search.max_concurrent=3", False, True),
        ("search.max_concurrent=3", True, False),  # nobody else could use the other slots
        ("data.cache_dir=/local", False, False),  # they decode meanwhile
    ],
)
def test_until_the_baseline_is_there_a_cluster_is_asked_for_one_slot(
    control: Any, monkeypatch: pytest.MonkeyPatch, override: str, local: bool, early: bool
) -> None:
    monkeypatch.setattr(watch_module, "LOOKED_EVERY_S", -1.0)
    said: list[str] = []
    running = control(override)
    running.observer = SimpleNamespace(**vars(QUIET) | {"on_message": said.append})
    write_baseline(running, "running")
    cluster: Any = SimpleNamespace(**vars(CLUSTER) | {"local": local})
    watch = Watch(running, NO_PROJECTOR, cluster, {})
    watch.stop_all()
    assert (running.slots == 1) is early
    write_baseline(running, "complete")
    watch.stop_all()
    assert running.slots > 1
    assert ("1 trial until the baseline is trained, which all others start from" in said) is early
    assert len(said) == 1 + early


def out_of_memory(number: int) -> dict[str, Any]:
    said = "the GPU's 80 GB do not suffice; set a smaller train.batch_size"
    return {"report": Report(number, failure=said, out_of_memory=True)}


def test_a_trial_without_memory_is_trained_once_more_with_a_gpu_to_itself(control: Any) -> None:
    running = control("resources.gpu=0.5", "train.device=cpu")
    searcher, scheduler = LedgerSearcher(running), LedgerScheduler(running)
    watch = Watch(running, NO_PROJECTOR, CLUSTER, scheduler.trials)
    watch._looked = float("inf")  # the slots stay as they are
    handed: dict[int, Any] = {}

    def hand_out(name: str) -> int | None:
        config = searcher.suggest(name)
        if not isinstance(config, dict):
            return None
        asked: list[Any] = []
        trial = SimpleNamespace(
            config=config, status=Trial.PENDING, asked=asked, update_resources=asked.append
        )
        scheduler.on_trial_add(None, trial)
        handed[config["trial"]] = trial
        return int(config["trial"])

    assert [hand_out("a"), hand_out("b")] == [0, 1]
    assert handed[0].asked[0].required_resources["GPU"] == 0.5
    assert scheduler.on_trial_result(None, None, out_of_memory(0)) == TrialScheduler.STOP
    searcher.on_trial_complete("a")
    scheduler.on_trial_complete(None, handed[0], {})
    assert running.ledger.trial(0).state == "running"
    assert "a GPU to itself" in running.ledger.trial(0).notes[0]

    assert hand_out("c") == 0, "before any new one"
    assert handed[0].asked[0].required_resources["GPU"] == 1
    assert hand_out("d") is None
    watch.stop_all()
    assert hand_out("e") is None, "half a GPU that is free is not given away meanwhile"
    handed[0].status = Trial.RUNNING
    watch.stop_all()
    assert hand_out("f") == 2
    assert handed[2].asked[0].required_resources["GPU"] == 0.5

    assert scheduler.on_trial_result(None, None, out_of_memory(0)) == TrialScheduler.STOP
    assert running.ledger.trial(0).state == "failed", "only once"
    assert "train.batch_size" in running.ledger.trial(0).failure


@pytest.mark.parametrize("share", [0, 1])
def test_a_trial_that_had_its_gpu_to_itself_fails_at_once(control: Any, share: int) -> None:
    running = control(f"resources.gpu={share}", "train.device=cpu")
    LedgerSearcher(running).suggest("a")
    LedgerScheduler(running).on_trial_result(None, None, out_of_memory(0))
    assert running.ledger.trial(0).state == "failed"


def test_a_trial_that_has_an_epoch_has_had_its_baseline(
    control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "LOOKED_EVERY_S", -1.0)
    running = control("search.max_concurrent=3", "budget.trials=5")
    write_baseline(running, "running")
    watch = Watch(running, NO_PROJECTOR, CLUSTER, {})
    LedgerSearcher(running).suggest("a")
    watch.stop_all()
    assert running.slots == 1
    LedgerScheduler(running).on_trial_result(None, None, result(0, 1))
    watch.stop_all()
    assert running.slots == 3


def test_an_import_ahead_that_fails_is_raised_where_it_is_used_and_not_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lmoe_tune.sweep.watch", None)
    monkeypatch.delattr("lmoe_tune.sweep.watch")
    with pytest.raises(ImportError):
        from lmoe_tune.sweep import watch  # noqa: F401

    assert cluster._import_tune() is None
