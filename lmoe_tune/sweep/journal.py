"""An Optuna journal in one file, with transactions.

`lines.py` says what a line is. A transaction is written with one write and one fsync; opening for
writing cuts back to the last whole one. So a kill leaves no half-made trial, and no decision that
was made but not recorded.

Optuna's stock backend reads the file, and so do programs over it, such as optuna-dashboard. If one
of them writes to it as well, its lines lie between ours: they are skipped, as none of ours is
missing there, and the writer moves them to another file before it appends anything.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages.journal import BaseJournalBackend

from lmoe_tune.durable import sync_folder
from lmoe_tune.sweep.contents import Contents
from lmoe_tune.sweep.lines import LedgerError, LedgerFile, Record, as_text, encode_text

log = logging.getLogger(__name__)


class JournalFile(BaseJournalBackend):
    """The backend of one ledger file, for writing: the caller holds the sweep's lock."""

    def __init__(self, path: Path, contents: Contents | None = None) -> None:
        """Read the file.

        Args:
            contents: empty; is kept as the records say, and what is in the file now is read from
                it.
        """
        self._path = path
        self._contents = contents
        self._file = LedgerFile(path)
        self._num_discarded = 0
        self._buffer: list[str] | None = None
        self._unread = self._file.pull()
        if contents is not None:
            self._apply(self._unread)
            self._unread = list(contents.records())
        if path.exists() and path.stat().st_size > self._file.end:
            if _has_foreign_lines(path, self._file.end):
                self._put_aside(path.stat().st_size)
            else:
                os.truncate(path, self._file.end)

    def read_logs(self, log_number_from: int) -> Iterable[Record]:
        """Records from a number on, those of an open transaction included. Read once, they are
        forgotten.
        """
        skip = log_number_from - self._num_discarded
        assert skip >= 0, "a journal file serves one storage"
        found = self._unread[skip:]
        if self._buffer is None:
            self._num_discarded += len(self._unread)
            self._unread = []
        return found

    def append_logs(self, logs: list[Record]) -> None:
        """Append records: to the open transaction, or as a transaction of their own."""
        texts = [as_text(record) for record in logs]
        # The study must see in memory what a later process will read from the file.
        as_read = [json.loads(text) for text in texts]
        if self._buffer is not None:
            self._buffer.extend(texts)
        else:
            self._write(texts)
        self._apply(as_read)
        self._unread.extend(as_read)

    @property
    def in_transaction(self) -> bool:
        return self._buffer is not None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all records of the block at once; within another block, with those of that one.

        If the block raises, the study in memory is ahead of the file, so the caller must end the
        process.
        """
        if self._buffer is not None:
            yield
            return

        self._buffer = []
        yield
        texts, self._buffer = self._buffer, None
        if texts:
            self._write(texts)

    def _apply(self, records: Iterable[Record]) -> None:
        if self._contents is not None:
            for record in records:
                self._contents.apply(record)

    def _write(self, texts: list[str]) -> None:
        first, last = self._file.num_lines, len(texts) - 1
        content = b"".join(
            encode_text(text, number=first + place, left=last - place)
            for place, text in enumerate(texts)
        )
        created = self._file.end == 0
        try:
            with self._path.open("ab", buffering=0) as file:
                if file.tell() != self._file.end:
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
                "free some space or fix the permissions, then resume"
            ) from error
        self._file.end = end
        self._file.num_lines += len(texts)

    def _put_aside(self, size: int) -> None:
        """Move what another program has appended to a file of its own."""
        if size < self._file.end:
            raise LedgerError(
                f"{self._path}: another program has cut this ledger short while it was in use; "
                "resume the sweep: what is missing is found in the trials' records"
            )
        with self._path.open("rb") as file:
            file.seek(self._file.end)
            foreign = file.read()
        aside = self._path.with_name(f"{self._path.name}.foreign")
        with aside.open("ab") as file:
            file.write(foreign)
        os.truncate(self._path, self._file.end)
        log.warning(
            "another program has written to %s; its %d lines are not part of the sweep and were moved to %s",
            self._path,
            foreign.count(b"\n"),
            aside,
        )

    def _cut_back(self) -> None:
        try:
            os.truncate(self._path, self._file.end)
        except OSError:
            return  # the next opening cuts it back


def _has_foreign_lines(path: Path, start: int) -> bool:
    """Whether more than one of our own torn transactions follows `start`."""
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
