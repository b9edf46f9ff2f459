"""A trial that is trained once more from its record, and what is said of the two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.api.one_trial import differences, recorded_trial, repeat
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import load_spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.platform import resolve_platform
from trainables import declarations


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[[], Ledger]:
    path = tmp_path / "small.yaml"
    path.write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")
    overrides = ["train.epochs=2", "model.baseline.epochs=1", "train.threads=1"]
    loaded = load_spec(path, overrides=overrides, declarations=declarations())
    folder = SweepFolder(tmp_path / "home", "small")
    folder.path.mkdir(parents=True)
    spec = resolve_platform(loaded.spec, cuda=False)
    return lambda: Ledger.writing(folder, spec, {"import_path": str(tmp_path)})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_repeated_trial_gives_the_same_numbers_and_a_changed_record_does_not(
    ledger: Callable[[], Ledger],
) -> None:
    made = ledger()
    number = made.ask().number
    made.record_judged(number, 1, {"val_auroc": 0.5, "val_accuracy": 0.5, "epoch_s": 1.0}, {})

    first = repeat(made, number)
    epoch = next(iter(first))
    assert set(differences(recorded_trial(made, number), first.epochs)) == {
        "val_auroc",
        "val_accuracy",
    }, "what was recorded here is made up; times are not compared"

    again = made.ask().number  # a second trial, recorded as it was trained
    assert made.trial(again).params != made.trial(number).params
    trained = {result.epoch: result.metrics for result in repeat_of(made, again)}
    for place, metrics in trained.items():
        made.record_judged(again, place, metrics, {})
    second = repeat(made, again)
    assert len(list(second)) == 2, "done again from the beginning"
    assert differences(recorded_trial(made, again), second.epochs) == {}
    assert epoch.epoch == 1


def repeat_of(made: Ledger, number: int):  # type: ignore[no-untyped-def]
    """What the trial gives, before anything of it is recorded."""
    from lmoe_tune.api.one_trial import SingleTrial
    from lmoe_tune.spec import LoadedSpec
    from lmoe_tune.sweep.observer import Observer

    loaded = LoadedSpec(made.spec, made.folder.home / "x.yaml")
    return SingleTrial(loaded, made.trial(number).params, made.folder.home, Observer())


def test_a_trial_that_is_not_there_or_has_no_epoch_is_refused(ledger: Callable[[], Ledger]) -> None:
    made = ledger()
    with pytest.raises(UsageError, match="has no trial 3: there are none yet"):
        recorded_trial(made, 3)

    number = made.ask().number
    with pytest.raises(UsageError, match="has no trial 3: there are 0 to 0"):
        recorded_trial(made, 3)
    with pytest.raises(UsageError, match="has no recorded epoch"):
        recorded_trial(made, number)
