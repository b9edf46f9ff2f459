"""Each kind of advice is typed where it is printed, and does what it was offered for."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmoe_tune.api import running
from lmoe_tune.cli import doctor, machine, options
from lmoe_tune.cli.machine import finding
from lmoe_tune.cli.main import app
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.runner import Outcome

WORD = r"(?:'[^']*'|[\w./+=~@%…-]+)"
COMMAND = re.compile(rf"lmoe-tune(?: {WORD})+")

MakeSweep = Callable[..., Ledger]


def commands_in(text: str) -> list[str]:
    """The command lines in a message."""
    return [command.rstrip(".") for command in COMMAND.findall(text)]


@dataclass
class Terminal:
    """Types command lines in this process; a sweep's trials are not trained, but would be."""

    capsys: pytest.CaptureFixture[str]
    begun: list[Ledger] = field(default_factory=list)
    """The sweeps that trials would have been trained of, as they were then."""

    def type(self, command: str, *more: str) -> tuple[int, str]:
        """The exit code, and all that was printed."""
        program, *words = shlex.split(command)
        assert program == "lmoe-tune"
        self.capsys.readouterr()
        try:
            code = app([*words, *more], standalone_mode=False)
        except LmoeTuneError as error:
            code = error.exit_code
            print(error)

        options.set_home(None)
        captured = self.capsys.readouterr()
        return code or 0, captured.out + captured.err


@pytest.fixture
def terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    made = Terminal(capsys)

    def train(ledger: Ledger, observer: object, **more: object) -> Outcome:
        assert ledger.exhausted() is None, "there is something left to train"
        made.begun.append(ledger)
        return Outcome("interrupted", delivered=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)
    monkeypatch.setattr(running, "run_sweep", train)
    monkeypatch.setattr(running._Run, "_refuse_closed_store", lambda self, uri: None)
    monkeypatch.setattr(view, "is_delivered", lambda ledger: True)
    monkeypatch.setattr(machine, "examine", lambda home: [])  # imports all that is installed
    monkeypatch.setattr(doctor, "_tracking", lambda home: finding("ok", "MLflow", "there"))
    return made


# ------------------------------------------------------------------ search, inspect, settings


def test_the_first_search_is_one_that_would_run(terminal: Terminal) -> None:
    said = terminal.type("lmoe-tune list")[1] + terminal.type("lmoe-tune resume")[1]

    for command in commands_in(said):
        code, found = terminal.type(command, "--dry-run")
        assert code == 0 and "trials of 10 epochs" in found
    assert len(commands_in(said)) == 2


def test_what_ui_offers_makes_what_it_would_show(terminal: Terminal, tmp_path: Path) -> None:
    _, said = terminal.type("lmoe-tune ui --home", "my runs")
    (command,) = commands_in(said)

    code, _ = terminal.type(command)

    assert code == 130 and terminal.begun[0].folder.home == tmp_path / "my runs"


def test_a_new_spec_is_searched_or_its_data_inspected_as_init_says(
    terminal: Terminal, tmp_path: Path
) -> None:
    (command,) = commands_in(terminal.type("lmoe-tune init mine --from digits")[1])
    assert terminal.type(command, "--dry-run")[0] == 0

    (command,) = commands_in(terminal.type("lmoe-tune init birds2 --from folder")[1])
    rng = np.random.default_rng(0)
    text = (tmp_path / "spaces" / "birds2.yaml").read_text(encoding="utf-8")
    for root in re.findall(r"root: ([^ ,}]+)", text):
        for place in range(60):
            path = tmp_path / root / f"{root[-3:]} {place % 5}" / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)

    code, found = terminal.type(command)

    assert code == 0 and "a search can start" in found, found


def test_resources_that_no_machine_has_are_lowered_as_it_says(terminal: Terminal) -> None:
    search = "lmoe-tune search digits --dry-run --set resources.cpu=9999"
    code, said = terminal.type(search)
    (option, _) = re.findall(r"--set [\w.]+=…", said)
    assert code == 2

    assert terminal.type(search, *shlex.split(option.replace("…", "1")))[0] == 0


# ------------------------------------------------------------------ resume

COMPLETE: dict[str, tuple[Sequence[float | None], dict[str, Any]]] = {
    "trials": ((0.8, 0.9), {"trials": 2}),
    "points": (
        (0.9,),
        {"trials": 8, "more": ["space={mixing_alpha: {choices: [1]}}", "search.start_from=[]"]},
    ),
    "max_failed": ((0.9, None), {"trials": 8, "more": ["budget.max_failed=0"]}),
    "time": ((0.9,), {"trials": 8, "more": ["budget.time=0.001"]}),
    "gpu_hours": (
        (0.9, 0.8),
        {"trials": 8, "more": ["resources.gpu=1", "budget.gpu_hours=0.5"]},
    ),
}


def complete(sweep: MakeSweep, budget: str) -> Ledger:
    """A sweep for which one budget is used up."""
    values, how = COMPLETE[budget]
    made = sweep("cars", *values, **how)
    if budget == "max_failed":
        made.fail(1, "it did not work")
    if budget == "time":
        run = made.begin_run({})
        time.sleep(0.01)
        made.end_run(run, "interrupted")
    if budget == "gpu_hours":
        metrics = {"val_auroc": 0.7, "val_accuracy": 0.95, "reserved_s": 3600.0}
        made.record_epoch(made.ask().number, 1, metrics, {"val_accuracy": 0.95})

    return made


@pytest.mark.parametrize("budget", ["trials", "max_failed", "time", "gpu_hours"])
def test_a_complete_sweep_is_extended_as_it_says(
    terminal: Terminal, sweep: MakeSweep, budget: str
) -> None:
    ledger = complete(sweep, budget)
    used = ledger.exhausted()
    assert used is not None and used.budget == budget

    _, said = terminal.type("lmoe-tune resume cars")
    offered = [command for command in commands_in(said) if " resume " in command]
    assert offered, said

    for command in offered:
        before = len(terminal.begun)
        code, found = terminal.type(command)
        assert (code, len(terminal.begun)) == (130, before + 1), f"{command}: {found}"


def test_what_extends_nothing_says_what_does(terminal: Terminal, sweep: MakeSweep) -> None:
    complete(sweep, "trials")
    code, said = terminal.type("lmoe-tune resume cars --time 8h")
    (command,) = commands_in(said)
    assert code == 2

    assert terminal.type(command)[0] == 130 and terminal.begun


def test_a_used_up_space_offers_no_resume(terminal: Terminal, sweep: MakeSweep) -> None:
    complete(sweep, "points")

    _, said = terminal.type("lmoe-tune resume cars")

    assert "start another sweep with a larger space" in said
    assert not [command for command in commands_in(said) if "resume" in command]


def test_an_interrupted_sweep_goes_on_as_it_and_doctor_say(
    terminal: Terminal, sweep: MakeSweep, tmp_path: Path
) -> None:
    sweep("cars", 0.9, None)
    _, said = terminal.type("lmoe-tune resume cars")
    (advised,) = [
        row for row in doctor.examine(tmp_path / "lmoe_runs") if row["what"] == "sweep cars"
    ]

    offered = [command for command in commands_in(said) if " ui " not in command]
    for command in [*offered, advised["advice"]]:
        before = len(terminal.begun)
        terminal.type(command)
        assert "resume cars" in command and len(terminal.begun) == before + 1


def test_a_sweep_that_is_not_complete_is_finished_before_it_is_confirmed(
    terminal: Terminal, sweep: MakeSweep
) -> None:
    sweep("cars", 0.9, None)
    code, said = terminal.type("lmoe-tune confirm cars")
    (command,) = commands_in(said)
    assert code == 2

    terminal.type(command)

    assert "resume cars" in command and terminal.begun


# ------------------------------------------------------------------ doctor


def test_a_damaged_ledger_is_examined_rebuilt_and_gone_on_with(
    terminal: Terminal, sweep: MakeSweep
) -> None:
    damaged = sweep("cars", 0.9, None).folder.ledger
    damaged.write_bytes(damaged.read_bytes().replace(b'"sweep"', b'"sweeq"', 1))

    _, said = terminal.type("lmoe-tune status cars")
    (doctor,) = commands_in(said)
    _, said = terminal.type(doctor, "--format", "csv")
    (rebuild,) = [command for command in commands_in(said) if "--rebuild" in command]
    code, said = terminal.type(rebuild)
    (resume,) = commands_in(said)
    assert code == 0

    assert terminal.type(resume)[0] == 130 and terminal.begun


def test_a_lost_ledger_is_rebuilt_as_it_says(terminal: Terminal, sweep: MakeSweep) -> None:
    sweep("cars", 0.9, None).folder.ledger.unlink()
    code, said = terminal.type("lmoe-tune status cars")
    (command,) = commands_in(said)
    assert code == 2

    assert terminal.type(command)[0] == 0
    assert terminal.type("lmoe-tune status cars")[0] == 0


# ------------------------------------------------------------------ confirm, leaderboard, ui


def test_what_comes_after_a_complete_sweep_can_be_typed(
    terminal: Terminal, sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(sweep, "trials")
    shown: list[Any] = []
    monkeypatch.setattr(
        "lmoe_tune.tracking.ui.serve", lambda *store, **more: shown.append(store) or 0
    )

    _, said = terminal.type("lmoe-tune resume cars")
    offered = {command.split()[1]: command for command in commands_in(said)}

    assert offered.keys() == {"resume", "ui", "confirm", "leaderboard"}, said
    assert terminal.type(offered["leaderboard"])[0] == 0
    assert terminal.type(offered["ui"])[0] == 0 and len(shown) == 1
    code, found = terminal.type(offered["confirm"], "--dry-run")
    assert code == 0, found


def test_a_winner_with_its_methods_defaults_is_not_offered_to_confirm(
    terminal: Terminal, sweep: MakeSweep
) -> None:
    sweep("cars", 0.9, 0.8, trials=2)  # trial 0 is the untuned method

    _, said = terminal.type("lmoe-tune resume cars")

    offered = {command.split()[1] for command in commands_in(said)}
    assert "leaderboard" in offered and "confirm" not in offered


def test_a_sweep_without_a_complete_trial_says_how_to_see_why(
    terminal: Terminal, sweep: MakeSweep
) -> None:
    ledger = sweep("cars", None, trials=1)
    ledger.fail(0, "it did not work")
    code, said = terminal.type("lmoe-tune confirm cars --dry-run")
    (command,) = commands_in(said)
    assert code == 2

    assert "it did not work" in terminal.type(command)[1]


def test_a_report_says_how_to_confirm(terminal: Terminal, sweep: MakeSweep) -> None:
    folder = complete(sweep, "trials").folder
    assert terminal.type("lmoe-tune report cars")[0] == 0

    page = (folder.path / "report" / "index.html").read_text(encoding="utf-8")
    (command,) = {one for one in commands_in(page) if " confirm " in one}

    assert terminal.type(command, "--dry-run")[0] == 0
