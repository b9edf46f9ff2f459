from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from lmoe_tune.sweep.journal import JournalFile
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import LedgerError, LedgerFile, as_text, decode, encode_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def records(path: Path, *, writable: bool = False) -> list[dict[str, Any]]:
    found = JournalFile(path).read_logs(0) if writable else LedgerFile(path).pull()
    return [
        {key: value for key, value in record.items() if key not in ("left", "crc")}
        for record in found
    ]


def write_three_transactions(path: Path) -> list[int]:
    """One record, three records, two records; returns the lengths of the file after each."""
    journal, lengths = JournalFile(path), [0]
    for numbers in ([0], [1, 2, 3], [4, 5]):
        with journal.transaction():
            for number in numbers:
                journal.append_logs([{"op_code": 0, "number": number, "text": 'é "quoted"\n'}])
        lengths.append(path.stat().st_size)
    return lengths


def test_a_file_that_is_not_there_holds_nothing_and_is_not_made_by_reading(path: Path) -> None:
    assert records(path) == []
    assert not path.exists()


def test_what_is_appended_is_read_back_in_order(path: Path) -> None:
    write_three_transactions(path)
    assert [record["number"] for record in records(path)] == [0, 1, 2, 3, 4, 5]
    assert records(path)[0]["text"] == 'é "quoted"\n'


def test_records_of_an_open_transaction_are_seen_by_the_writer_and_by_nobody_else(
    path: Path,
) -> None:
    journal = JournalFile(path)
    with journal.transaction():
        journal.append_logs([{"number": 0}])
        journal.append_logs([{"number": 1}])
        assert [record["number"] for record in journal.read_logs(0)] == [0, 1]
        assert records(path) == []
    assert [record["number"] for record in records(path)] == [0, 1]


def test_a_transaction_within_another_is_written_with_it(path: Path) -> None:
    journal = JournalFile(path)
    with journal.transaction():
        journal.append_logs([{"op_code": 0, "number": 0}])
        with journal.transaction():
            journal.append_logs([{"op_code": 0, "number": 1}])
        assert records(path) == []
        journal.append_logs([{"op_code": 0, "number": 2}])
    assert not journal.in_transaction
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["left"] for line in lines] == [2, 1, 0]


def test_an_empty_transaction_writes_nothing(path: Path) -> None:
    with JournalFile(path).transaction():
        pass
    assert not path.exists()


def test_a_transaction_that_raises_writes_nothing(path: Path) -> None:
    journal = JournalFile(path)
    with pytest.raises(ZeroDivisionError), journal.transaction():
        journal.append_logs([{"number": 0}])
        raise ZeroDivisionError
    assert records(path) == []


def test_every_line_says_how_many_of_its_transaction_follow(path: Path) -> None:
    write_three_transactions(path)
    assert [json.loads(line)["left"] for line in path.read_text(encoding="utf-8").splitlines()] == [
        0,
        2,
        1,
        0,
        1,
        0,
    ]


def test_cut_at_any_byte_it_opens_with_the_transactions_that_are_whole(path: Path) -> None:
    lengths = write_three_transactions(path)
    content = path.read_bytes()
    numbers_at = dict(zip(lengths, ([], [0], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]), strict=True))
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = max(length for length in lengths if length <= cut)
        assert [record["number"] for record in records(path)] == numbers_at[whole], cut
        assert path.stat().st_size == cut, "only looking changes nothing"
        assert [record["number"] for record in records(path, writable=True)] == numbers_at[whole], (
            cut
        )
        assert path.stat().st_size == whole


def test_after_a_cut_it_goes_on_as_if_the_torn_transaction_had_never_been(path: Path) -> None:
    lengths = write_three_transactions(path)
    os.truncate(path, lengths[2] - 5)
    journal = JournalFile(path)
    assert [record["number"] for record in journal.read_logs(0)] == [0]
    journal.append_logs([{"number": 7}])
    assert [record["number"] for record in records(path)] == [0, 7]


def test_zeros_at_the_end_as_a_power_cut_leaves_them_are_cut_off(path: Path) -> None:
    lengths = write_three_transactions(path)
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    assert len(records(path, writable=True)) == 6
    assert path.stat().st_size == lengths[-1]


@pytest.mark.parametrize("line", range(5))
def test_a_damaged_line_with_good_ones_after_it_is_refused_and_left_as_it_is(
    path: Path, line: int
) -> None:
    write_three_transactions(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"number":', b'"numbes":')
    damaged = b"".join(lines)
    path.write_bytes(damaged)
    for read in (JournalFile, records):
        with pytest.raises(LedgerError, match=rf"damaged at line {line + 1}\b"):
            read(path)
    assert path.read_bytes() == damaged


def test_any_flipped_byte_but_in_the_last_line_is_noticed(path: Path) -> None:
    lengths = write_three_transactions(path)
    content = path.read_bytes()
    end_of_first_two = lengths[2]
    for place in range(end_of_first_two):
        flipped = bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]])
        with pytest.raises(LedgerError, match="damaged"):
            decode(flipped, origin="ledger")


def test_a_lost_line_within_a_transaction_is_noticed(path: Path) -> None:
    write_three_transactions(path)
    lines = path.read_bytes().splitlines(keepends=True)
    with pytest.raises(LedgerError, match="damaged"):
        decode(b"".join([*lines[:2], *lines[3:]]), origin="ledger")


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel writes up to the limit and no further, as on a full disk; pytest's own log included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_what_was_half_written_is_cut_off(path: Path) -> None:
    journal = JournalFile(path)
    journal.append_logs([{"number": 0}])
    length = path.stat().st_size
    refused = pytest.raises(
        LedgerError, match=r"ledger\.jsonl: cannot write the ledger .*free some space"
    )
    with files_limited_to(length + 20), refused:
        journal.append_logs([{"number": 1, "text": "x" * 1000}])
    assert path.stat().st_size == length
    assert [record["number"] for record in records(path)] == [0]


def test_a_failing_fsync_is_an_error_and_the_write_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalFile(path)
    journal.append_logs([{"number": 0}])

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LedgerError, match="Input/output error"):
        journal.append_logs([{"number": 1}])
    assert [record["number"] for record in records(path)] == [0]


def test_a_reader_follows_a_writer(path: Path) -> None:
    writer, reader = JournalFile(path), LedgerFile(path)
    for number in range(5):
        with writer.transaction():
            writer.append_logs([{"number": number}])
            writer.append_logs([{"number": number + 100}])
            assert reader.pull() == []
        assert [record["number"] for record in reader.pull()] == [number, number + 100]


def test_a_reader_beside_a_writing_process_only_ever_sees_whole_transactions(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lmoe_tune.sweep.journal import JournalFile\n"
        "journal = JournalFile(Path(sys.argv[1]))\n"
        "for number in range(60):\n"
        "    with journal.transaction():\n"
        "        for part in range(7): journal.append_logs([{'number': number, 'text': 'x' * 3000}])\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    reader, seen = LedgerFile(path), 0
    while True:
        ended = writer.poll() is not None
        fresh = reader.pull()
        assert len(fresh) % 7 == 0
        seen += len(fresh)
        if ended:
            break
    assert writer.returncode == 0
    assert seen == 60 * 7


def test_a_line_is_the_record_itself_and_floats_survive() -> None:
    record = {"op_code": 6, "value": 0.1 + 0.2, "small": 5e-324}
    line = encode_text(as_text(record), number=0, left=0)
    found, length = decode(line, origin="x")
    assert found[0]["value"] == record["value"] and found[0]["small"] == 5e-324
    assert length == len(line)


# ------------------------------------------------------------------ other programs


def stock(path: Path) -> optuna.Study:
    """The study as a program over Optuna's own backend has it, optuna-dashboard for one."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="sweep", storage=storage)


def test_what_another_program_writes_into_a_running_ledger_is_put_aside_before_the_next_record(
    ledger: Callable[..., Ledger],
    run_trial: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = ledger("budget.trials=4", "search.pruner=none")
    run_trial(written)
    notebook = stock(written.folder.ledger)
    notebook.set_user_attr("dashboard:note", "a good one")
    notebook.enqueue_trial({"mixing_alpha": 3.0})
    reader = Ledger.reading(written.folder, written.spec)
    assert reader.trials() == written.trials(), "passed over"
    run_trial(written)
    assert "another program has written to" in caplog.text
    assert reader.trials() == written.trials()
    assert b"dashboard:note" not in written.folder.ledger.read_bytes()
    aside = written.folder.ledger.with_name("ledger.jsonl.foreign")
    assert b"dashboard:note" in aside.read_bytes()
    assert ledger().trials() == written.trials()
    assert len(stock(written.folder.ledger).trials) == 2


def test_lines_of_another_program_that_stand_between_ours_are_passed_over(
    ledger: Callable[..., Ledger], run_trial: Callable[..., Any]
) -> None:
    written = ledger("search.pruner=none")
    run_trial(written)
    expected, content = written.trials(), written.folder.ledger.read_bytes()
    lines = content.splitlines(keepends=True)
    foreign = b'{"op_code":2,"worker_id":"w","study_id":0,"user_attr":{"note":1}}\n'
    for place in range(1, len(lines) + 1):
        for line in (foreign, b"hello\n", b"\n"):
            written.folder.ledger.write_bytes(b"".join([*lines[:place], line, *lines[place:]]))
            assert Ledger.reading(written.folder, written.spec).trials() == expected
    resumed = ledger("search.pruner=none")
    run_trial(resumed)
    assert [trial.state for trial in ledger().trials()] == ["complete", "complete"]


def test_a_line_that_comes_in_the_moment_of_a_write_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = JournalFile(path)
    journal.append_logs([{"number": 0}])
    real = Path.open

    class Interfering:
        """A file into which somebody else writes right after its position was looked at."""

        def __init__(self, file: Any) -> None:
            self._file, self._done = file, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Interfering:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def tell(self) -> int:
            position = int(self._file.tell())
            if not self._done:
                self._done = True
                with real(path, "ab") as other:
                    other.write(b'{"op_code":2}\n')
            return position

    def opened(self: Path, *args: Any, **kwargs: Any) -> Any:
        file = real(self, *args, **kwargs)
        if self == path and args == ("ab",):
            return Interfering(file)
        return file

    monkeypatch.setattr(Path, "open", opened)
    journal.append_logs([{"number": 1}])
    journal.append_logs([{"number": 2}])
    assert [record["number"] for record in records(path)] == [0, 1, 2]


def test_a_ledger_that_another_program_has_cut_is_not_appended_to(path: Path) -> None:
    journal = JournalFile(path)
    journal.append_logs([{"number": 0}])
    os.truncate(path, 0)
    with pytest.raises(LedgerError, match="cut this ledger short"):
        journal.append_logs([{"number": 1}])


def test_optunas_own_backend_reads_the_file(
    ledger: Callable[..., Ledger], run_trial: Callable[..., Any]
) -> None:
    written = ledger("budget.trials=3", "search.pruner=median")
    for _ in range(3):
        run_trial(written)
    content = written.folder.ledger.read_bytes()
    found = stock(written.folder.ledger)
    assert [trial.params for trial in found.trials] == [
        trial.params for trial in written.study.trials
    ]
    assert [trial.state for trial in found.trials] == [
        trial.state for trial in written.study.trials
    ]
    assert found.best_value == written.study.best_value
    assert written.folder.ledger.read_bytes() == content
