"""The live table on a pseudo-terminal, as a person sees it: narrow, wide, resized, and warned into."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmoe_tune.cli.foot import Foot
from lmoe_tune.cli.live_table import LiveTable
from lmoe_tune.cli.streams import PatientFile
from lmoe_tune.spec import load_spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from trainables import declarations

GOOD = {"val_auroc": 0.9, "val_accuracy": 0.95, "epoch_s": 2.0}
BASELINE = {"val_accuracy": 0.95}


class Terminal:
    """A pseudo-terminal and its screen: wraps long lines, also when it is resized."""

    def __init__(self, columns: int, rows: int = 24) -> None:
        self._master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.stderr = PatientFile(self.slave, always=True)
        self.lines, self._place = [""], 0  # whole lines, and the one that the cursor is in
        self.columns = columns
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int = 24) -> None:
        self.read()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns = columns

    def read(self) -> None:
        """Take in what was written. A row that is erased takes the wrapped rest of its line along."""
        os.set_blocking(self._master, False)
        text = b""
        try:
            while True:
                text += os.read(self._master, 65536)
        except BlockingIOError:
            pass
        for part in text.decode().replace("\x1b[A\x1b[2K", "\0").replace("\r\x1b[2K", "\1"):
            if part == "\0":
                self._erase_row_above()
            elif part == "\1":
                self.lines[-1] = ""
            elif part == "\n":
                self.lines.append("")
            else:
                assert part.isprintable(), f"{part!r} is not understood here"
                self.lines[-1] += part

    def _erase_row_above(self) -> None:
        assert self.lines[-1] == ""
        above = self.lines[-2]
        rows = max(1, -(-len(above) // self.columns))
        if rows == 1:
            self.lines[-2:] = [""]
        else:
            self.lines[-2] = above[: (rows - 1) * self.columns]

    def close(self) -> None:
        os.close(self._master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(columns: int, rows: int = 24) -> Terminal:
        made.append(Terminal(columns, rows))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[..., Ledger]:
    def make(*overrides: str) -> Ledger:
        path = tmp_path / "small.yaml"
        path.write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")
        settings = ["search.pruner=none", "train.epochs=4", "budget.trials=9", *overrides]
        spec = load_spec(path, overrides=settings, declarations=declarations()).spec
        folder = SweepFolder(tmp_path, "small")
        folder.path.mkdir(parents=True)
        return Ledger.writing(folder, spec, {"baseline": "none"})

    return make


def steps(table: LiveTable, ledger: Ledger, epochs: int, trials: int = 1) -> None:
    """Some trials, as a sweep reports them."""
    for _ in range(trials):
        number = ledger.ask().number
        table.on_start(ledger.trial(number))
        for epoch in range(1, epochs + 1):
            if ledger.record_epoch(number, epoch, GOOD, BASELINE):
                table.on_end(ledger.trial(number))
            else:
                table.on_epoch(ledger.trial(number))


def begun(terminal: Terminal, ledger: Ledger) -> LiveTable:
    """A table whose thread does not run: `lines` is asked instead."""
    table = LiveTable(terminal.stderr, "utf-8")
    table._foot.start = lambda: None  # type: ignore[method-assign]
    table.on_begin(ledger)
    return table


@pytest.mark.parametrize("width", [39, 79])
def test_everything_fits(
    width: int, terminal: Callable[..., Terminal], ledger: Callable[..., Ledger]
) -> None:
    sweep = ledger("resources.gpu=0.5", "budget.gpu_hours=8")
    table = begun(terminal(80), sweep)
    steps(table, sweep, epochs=4)
    steps(table, sweep, epochs=2)

    shown = table.lines(width, 20)

    assert max(map(len, shown)) <= 39, "what stands there for long fits a phone"
    assert shown[0].startswith("trials    1 of 9, 1 running")
    assert shown[1].startswith("time ")
    assert shown[1].endswith(" left")
    assert shown[2] == "spent     0.00 of 8 GPU-hours"
    assert shown[3] == "best      trial 0, val_auroc 0.9"
    assert shown[4] == "          mixing_alpha 1,"
    assert shown[-1] == "trial 1   ━━━━━─────  2/4  0.9"


def test_a_low_window_shows_the_sweep_and_says_how_many_trials_it_does_not(
    terminal: Callable[..., Terminal], ledger: Callable[..., Ledger]
) -> None:
    sweep = ledger()
    table = begun(terminal(80), sweep)
    steps(table, sweep, epochs=1, trials=6)

    shown = table.lines(79, 5)

    assert len(shown) == 5
    assert shown[0] == "trials    0 of 9, 6 running"
    assert shown[-1] == "          and 4 more trials"


@pytest.mark.parametrize(("width", "num_lines"), [(79, 1), (39, 2)])
def test_the_first_stages_have_a_bar_each(
    width: int, num_lines: int, terminal: Callable[..., Terminal], ledger: Callable[..., Ledger]
) -> None:
    table = LiveTable(terminal(80).stderr, "ascii")
    table._foot.start = lambda: None  # type: ignore[method-assign]
    table.on_work("data.id: files read", 4072, 8144)

    shown = table.lines(width, 20)

    assert len(shown) == num_lines
    assert shown[0].startswith("data.id: files read")
    assert "##########.........." in shown[-1] or width < 79
    assert "4,072 of 8,144, 0s left" in shown[-1]
    table.on_begin(ledger())
    assert "baseline  ....................  0 of 10" in table.lines(width, 20)


def test_warnings_stand_above_the_table_and_the_table_goes(
    terminal: Callable[..., Terminal], ledger: Callable[..., Ledger]
) -> None:
    screen, sweep = terminal(80), ledger()
    stderr = io.TextIOWrapper(
        io.BufferedWriter(screen.stderr), encoding="utf-8", line_buffering=True
    )
    table = begun(screen, sweep)
    foot = Foot(screen.stderr, "utf-8", table.lines, every_s=1000)
    steps(table, sweep, epochs=2)
    foot.start()
    while foot._num_drawn == 0:
        pass

    stderr.write("a warning\nwithout an ")
    stderr.flush()
    screen.read()
    assert screen.lines[:2] == ["a warning", "trials    0 of 9, 1 running"]
    assert screen.lines[-2:] == ["trial 0   ━━━━━─────  2/4  0.9", ""]

    stderr.write("end\n")
    screen.read()
    assert screen.lines[:2] == ["a warning", "without an end"]

    foot.stop()
    stderr.write("afterwards\n")
    screen.read()
    assert screen.lines == ["a warning", "without an end", "afterwards", ""]


@pytest.mark.parametrize("narrow", [40, 25])
def test_a_window_that_becomes_narrow_and_wide_again_shows_one_table(
    narrow: int, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal(80)
    foot = Foot(screen.stderr, "utf-8", lambda width, height: ["x" * width] * 3, every_s=1000)
    foot.start()
    while foot._num_drawn == 0:
        pass

    screen.resize(narrow)
    foot.above(b"one\n")
    screen.read()
    assert screen.lines == ["one", *["x" * (narrow - 1)] * 3, ""]

    screen.resize(80, rows=4)
    foot.above(b"two\n")
    screen.read()
    assert screen.lines == ["one", "two", *["x" * (narrow - 1)] * 2, ""], (
        "as many as there is room for"
    )
    foot.stop()
