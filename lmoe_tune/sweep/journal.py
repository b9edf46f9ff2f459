"""An Optuna journal in one file, with transactions.

A line is one of Optuna's records as JSON, plus three keys of ours: `n`, the line's number from 0,
`left`, how many records of the same transaction are still to follow, and `crc`, the CRC-32 of the
line without it. A transaction is written with one write and one fsync; opening for writing cuts
back to the last whole one. So a kill leaves no half-made trial and no decision that was taken but
not told.

Optuna's stock backend reads the file, and so do programs over it, such as optuna-dashboard. Should
one of them write to
it as well, its lines lie between ours: they are passed over, as nothing of ours is missing there,
and the writer puts them aside before it appends anything.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from lmoe_tune import advice
from lmoe_tune.durable import sync_folder
from lmoe_tune.errors import LmoeTuneError

log = logging.getLogger(__name__)

Record = dict[str, Any]

_CRC_LENGTH = len(',"crc":"00000000"}')


class LedgerError(LmoeTuneError):
    """The ledger cannot be read or written."""


class LedgerStorage(JournalStorage):
    """Optuna's journal storage, which does not look at all trials to find those that wait."""

    def __init__(self, backend: JournalFile, waiting: Mapping[int, Any] | None) -> None:
        """`waiting` has the numbers of these, in order; None where it is not known."""
        super().__init__(backend)
        self._waiting = waiting

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,) and not deepcopy and self._waiting is not None:
            return [
                self.get_trial(self.get_trial_id_from_study_id_trial_number(study_id, number))
                for number in self._waiting
            ]
        return super().get_all_trials(study_id, deepcopy, states)


class JournalFile(BaseJournalBackend):
    """The backend of one ledger file.

    With `writable=False` the file is only read, up to its last whole transaction, at any moment and
    beside a writer. With `writable=True` the caller must hold the sweep's lock.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        self.writable = writable
        self._unread: list[Record] = []
        self._num_discarded = 0
        self._buffer: list[Record] | None = None
        self._end = 0  # bytes up to the last whole transaction seen
        self._num_lines = 0  # in these bytes
        self._pull()
        if writable and path.exists() and path.stat().st_size > self._end:
            if _has_foreign_lines(path, self._end):
                self._put_aside(path.stat().st_size)
            else:
                os.truncate(path, self._end)

    def read_logs(self, log_number_from: int) -> Iterable[Record]:
        """Records from a number on, those of an open transaction included. Read once, they are
        forgotten.
        """
        if not self.writable:
            self._pull()
        skip = log_number_from - self._num_discarded
        assert skip >= 0, "a journal file serves one storage"
        fresh = self._unread[skip:]
        if self._buffer is None:
            self._num_discarded += len(self._unread)
            self._unread = []
        return fresh

    def append_logs(self, logs: list[Record]) -> None:
        """Append records: to the open transaction, or as a transaction of their own."""
        assert self.writable, "this ledger was opened for reading"
        logs = [_jsonable(log) for log in logs]
        if self._buffer is not None:
            self._buffer.extend(logs)
        else:
            self._write(logs)
        self._unread.extend(logs)

    @property
    def in_transaction(self) -> bool:
        return self._buffer is not None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all records of the block at once.

        If the block raises, the study in memory is ahead of the file, so the caller must end the
        process.
        """
        assert self._buffer is None, "a transaction within a transaction"
        self._buffer = []
        yield
        records, self._buffer = self._buffer, None
        if records:
            self._write(records)

    def _write(self, records: list[Record]) -> None:
        content = b"".join(
            encode(record, number=self._num_lines + place, left=len(records) - 1 - place)
            for place, record in enumerate(records)
        )
        created = not self._path.exists()
        try:
            with self._path.open("ab", buffering=0) as file:
                if file.tell() != self._end:
                    self._put_aside(file.tell())
                written = file.write(content)
                if written != len(content):
                    raise OSError(f"only {written} of {len(content)} bytes written")
                os.fsync(file.fileno())
                end = file.tell()  # beyond a line that another program wrote in this moment
            if created:
                sync_folder(self._path.parent)
        except OSError as error:
            self._cut_back()
            raise LedgerError(
                f"{self._path}: cannot write the ledger ({error}). Nothing before this is lost; "
                "free some space or mend the permissions, then resume"
            ) from error
        self._end = end
        self._num_lines += len(records)

    def _put_aside(self, size: int) -> None:
        """Move what another program has appended to a file of its own."""
        if size < self._end:
            raise LedgerError(
                f"{self._path}: another program has cut this ledger short while it was in use; "
                "resume the sweep: what is missing is found in the trials' records"
            )
        with self._path.open("rb") as file:
            file.seek(self._end)
            foreign = file.read()
        aside = self._path.with_name(f"{self._path.name}.foreign")
        with aside.open("ab") as file:
            file.write(foreign)
        os.truncate(self._path, self._end)
        log.warning(
            "another program has written to %s; its %d lines are not part of the sweep and were moved to %s",
            self._path,
            foreign.count(b"\n"),
            aside,
        )

    def _cut_back(self) -> None:
        try:
            os.truncate(self._path, self._end)
        except OSError:
            return  # the next opening cuts it back

    def _pull(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            return
        records, length = decode(
            content, origin=f"{self._path} from byte {self._end}", first=self._num_lines
        )
        self._unread.extend(records)
        self._end += length
        self._num_lines += len(records)


def encode(record: Record, *, number: int, left: int) -> bytes:
    """One line of the file."""
    body = json.dumps({**record, "n": number, "left": left}, separators=(",", ":"))
    return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode(content: bytes, *, origin: str, first: int = 0) -> tuple[list[Record], int]:
    """The records of all whole transactions at the start of `content`, and their length in bytes.

    `first` is the number of the first line. What a kill leaves is a torn last transaction, and is
    left out. A line that is not ours is passed over where the numbers of our own go on; a line of
    ours that is missing or bad, with good ones after it, cannot come from a kill:

    Raises:
        LedgerError: the content is damaged.
    """
    records: list[Record] = []
    whole_records = whole_length = position = 0
    bad: int | None = None
    lines = content.split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    for number, (line, record) in enumerate(zip(lines, _decode_lines(lines), strict=True)):
        position += len(line) + 1
        if record is None:
            bad = number if bad is None else bad
            continue
        left = records[-1]["left"] if records else 0
        if record["n"] != first + len(records) or (left and record["left"] != left - 1):
            if bad is None:
                what = "a line before it is missing"
            else:
                what = "its checksum does not match"
            raise LedgerError(
                f"{origin}: damaged at line {(number if bad is None else bad) + 1} ({what}). "
                f"Run `{advice.doctor()}` to see what can be rebuilt"
            )
        records.append(record)
        if record["left"] == 0:
            whole_records, whole_length, bad = len(records), position, None
    return records[:whole_records], whole_length


def whole_prefix(content: bytes) -> bytes:
    """What stands before the first line that is missing or damaged, up to the last whole
    transaction.
    """
    position = length = number = 0
    lines = content.split(b"\n")
    for line, record in zip(lines, _decode_lines(lines), strict=True):
        position += len(line) + 1
        if record is None:
            continue
        if record["n"] != number:
            break
        number += 1
        if record["left"] == 0:
            length = position
    return content[:length]


def good_records(content: bytes) -> list[Record]:
    """Every record of ours whose line is undamaged, wherever it stands."""
    return [record for record in _decode_lines(content.split(b"\n")) if record is not None]


def _has_foreign_lines(path: Path, start: int) -> bool:
    """Whether what follows `start` is more than a transaction of ours that was torn."""
    with path.open("rb") as file:
        file.seek(start)
        return any(line and not _is_start_of_ours(line) for line in file.read().split(b"\n"))


def _is_start_of_ours(line: bytes) -> bool:
    """Whether a line may be one of ours that a kill has cut off, or a power cut has filled with
    zeros.
    """
    if not line.strip(b"\0"):
        return True
    try:
        found = json.loads(line)
    except ValueError:
        return line.startswith(b'{"op_code":')
    return isinstance(found, dict) and "crc" in found


def _decode_lines(lines: list[bytes]) -> list[Record | None]:
    """Each line's record; None for one that is damaged."""
    sound = [_is_sound(line) for line in lines]
    # One document is parsed in half the time that its lines take one by one.
    parsed = iter(
        json.loads(
            b"[%s]" % b",".join(line for line, good in zip(lines, sound, strict=True) if good)
        )
    )
    return [next(parsed) if good else None for good in sound]


def _is_sound(line: bytes) -> bool:
    return line[-_CRC_LENGTH:] == b',"crc":"%08x"}' % zlib.crc32(
        b"}", zlib.crc32(line[:-_CRC_LENGTH])
    )


def _jsonable(record: Record) -> Record:
    # The study must see in memory what a later process will read from the file.
    copy: Record = json.loads(json.dumps(record))
    return copy
