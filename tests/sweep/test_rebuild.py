"""A ledger that was damaged is built again from what is left, and the sweep goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import LedgerError
from lmoe_tune.sweep.rebuild import behind, rebuild, refuse_whole, survey, write_about
from lmoe_tune.sweep.trial_files import mend_records
from tests.sweep.test_crash_points import METHODS, TWO_OBJECTIVES, contents, work

SPACES = {"tpe": (), "random": METHODS, "qmc": (), "nsga2": TWO_OBJECTIVES}


@pytest.fixture
def half(
    spec: Callable[..., Spec],
    folder: SweepFolder,
    metrics: Any,
    baseline: dict[str, float],
    monkeypatch: Any,
) -> Callable[..., tuple[Ledger, list[Any]]]:
    """A sweep at its half with all its records, and what it is in the end when nothing happens to it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def make(sampler: str) -> tuple[Ledger, list[Any]]:
        pruner = "none" if sampler == "nsga2" else "asha"
        chosen = spec(
            f"search.sampler={sampler}", f"search.pruner={pruner}", "search.min_epochs=1", "budget.trials=8",
            "search.start_from=[{mixing_alpha: 1.0, outlier_ratio: 1.0}]", *SPACES[sampler],
        )  # fmt: skip
        uninterrupted = Ledger.writing(SweepFolder(folder.home, "other"), chosen)
        work(uninterrupted, metrics, baseline)
        ledger = Ledger.writing(folder, chosen)
        write_about(ledger)
        steps = 0
        while steps < 12:  # as `work` does, up to a moment with trials of every state
            running = ledger.unfinished()
            if len(running) < 2 and ledger.exhausted() is None:
                ledger.ask()
            else:
                trial = min(
                    running,
                    key=lambda trial: (len(ledger.trial(trial.number).epochs), trial.number),
                )
                epoch = len(ledger.trial(trial.number).epochs) + 1
                if trial.number == 2 and epoch == 2:
                    ledger.fail(2, "epoch 2: train_loss is nan")
                else:
                    ledger.record_epoch(trial.number, epoch, metrics(trial.params, epoch), baseline)
            steps += 1
        mend_records(folder, ledger.trials())
        return ledger, contents(uninterrupted.study)

    return make


@pytest.fixture(autouse=True)
def other(folder: SweepFolder) -> None:
    SweepFolder(folder.home, "other").path.mkdir(parents=True)


def flip_a_bit(content: bytes, seed: int) -> bytes:
    place = random.Random(seed).randrange(len(content) // 2)
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sampler", list(SPACES))
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: flip_a_bit(content, 1),
        lambda content: flip_a_bit(content, 2),
        lambda content: content[: len(content) // 2],
        lambda content: b"\0" * (len(content) // 2) + content[len(content) // 2 :],
        lambda content: content.replace(content.splitlines(keepends=True)[7], b""),
    ],
    ids=["a bit", "another bit", "cut in half", "the first half zeros", "a line missing"],
)
def test_whatever_is_damaged_the_sweep_ends_as_it_would_have(
    half: Any,
    folder: SweepFolder,
    metrics: Any,
    baseline: dict[str, float],
    sampler: str,
    damage: Any,
) -> None:
    ledger, expected = half(sampler)
    before = contents(ledger.study)
    content = folder.ledger.read_bytes()
    folder.ledger.write_bytes(damage(content))
    remains, kept = rebuild(folder, ledger.spec)
    assert remains.lost == ()
    assert kept.read_bytes() == damage(content)
    rebuilt = Ledger.writing(folder, ledger.spec)
    assert rebuilt.sweep_id == ledger.sweep_id
    assert without_waiting(contents(rebuilt.study)) == without_waiting(before)
    if not (
        sampler == "qmc" and b'"qmc (' not in damage(content)
    ):  # what it counts by stood in the lost half
        work(rebuilt, metrics, baseline)
        assert contents(rebuilt.study) == expected


def without_waiting(trials: list[Any]) -> list[Any]:
    return [trial[:3] + trial[4:] for trial in trials if trial[2]]


def test_a_ledger_that_is_gone_is_built_from_the_records_alone(
    half: Any, folder: SweepFolder, metrics: Any, baseline: dict[str, float]
) -> None:
    ledger, expected = half("tpe")
    folder.ledger.unlink()
    remains, _ = rebuild(folder, ledger.spec)
    assert remains.num_from_records == len(ledger.trials())
    rebuilt = Ledger.writing(folder, ledger.spec)
    work(rebuilt, metrics, baseline)
    assert contents(rebuilt.study) == expected


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "damaged"])
def test_a_trial_comes_back_with_the_distributions_that_it_had_whatever_the_spec_says_now(
    half: Any, folder: SweepFolder, spec: Callable[..., Spec], gone: bool
) -> None:
    ledger, _ = half("tpe")
    expected = contents(ledger.study)
    dropped = spec("space={mixing_alpha: {low: 0.5, high: 4, log: true}}", "budget.trials=8")
    if gone:
        folder.ledger.unlink()
    else:
        content = folder.ledger.read_bytes()
        place = len(content) // 2
        folder.ledger.write_bytes(content[:place] + b"#" + content[place + 1 :])
    rebuild(folder, dropped)
    rebuilt = Ledger.writing(folder, dropped)
    assert without_waiting(contents(rebuilt.study)) == without_waiting(expected)
    assert [trial.distributions for trial in rebuilt.trials()] == [
        trial.distributions for trial in ledger.trials()
    ]
    assert set(rebuilt.ask().params) == {"mixing_alpha"}


def test_a_trial_of_which_nothing_is_left_is_named_and_fails(
    half: Any, folder: SweepFolder
) -> None:
    ledger, _ = half("tpe")
    folder.ledger.unlink()
    shutil.rmtree(folder.trial(1))
    remains, _ = rebuild(folder, ledger.spec)
    assert remains.lost == (1,)
    assert "nothing is left of trial 1" in str(remains)
    lost = Ledger.reading(folder, ledger.spec).trial(1)
    assert lost.state == "failed"
    assert "lost" in (lost.failure or "")


def test_a_ledger_that_lost_its_end_is_noticed(half: Any, folder: SweepFolder) -> None:
    ledger, _ = half("tpe")
    assert behind(ledger) is None
    content = folder.ledger.read_bytes()
    folder.ledger.write_bytes(content[: len(content) // 2])
    assert "it has lost its end" in str(behind(Ledger.reading(folder, ledger.spec)))
    refuse_whole(folder, ledger.spec)


def test_a_whole_ledger_is_left_alone(half: Any, folder: SweepFolder) -> None:
    ledger, _ = half("tpe")
    with pytest.raises(UsageError, match="nothing to rebuild"):
        refuse_whole(folder, ledger.spec)


def test_without_ledger_and_about_nothing_is_made_up(half: Any, folder: SweepFolder) -> None:
    ledger, _ = half("tpe")
    folder.ledger.unlink()
    folder.about.unlink()
    with pytest.raises(LedgerError, match="which sweep this is"):
        survey(folder, ledger.spec)
    assert not folder.ledger.exists()
