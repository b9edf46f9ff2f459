"""The lines of a ledger's file.

A line is one of Optuna's records as JSON, plus three keys of ours: `n`, the line's number from 0,
`left`, how many records of the same transaction are still to follow, and `crc`, the CRC-32 of the
line without it. Reading needs nothing of Optuna's.
"""

from __future__ import annotations

import json
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

from lmoe_tune import advice
from lmoe_tune.errors import LmoeTuneError

Record = dict[str, Any]

_CRC_LENGTH = len(',"crc":"00000000"}')
_COMPACT = json.JSONEncoder(separators=(",", ":"))


class LedgerError(LmoeTuneError):
    """The ledger cannot be read or written."""


class LedgerFile:
    """A ledger's file as it is read: each `pull` gives what has come since, in whole transactions.

    Attributes:
        end: bytes up to the last whole transaction seen.
        num_lines: in these bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self.num_lines = 0

    def pull(self) -> list[Record]:
        """The records that were not given before.

        Raises:
            LedgerError: the file is damaged.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.end)
                content = file.read()
        except FileNotFoundError:
            return []
        if not content:
            return []

        origin = f"{self.path} from byte {self.end}"
        try:
            records, length = decode(content, origin=origin, first=self.num_lines)
        except LedgerError as error:
            see = advice.doctor(home=_home_above(self.path))
            raise LedgerError(f"{error}; to see what can be rebuilt: {see}") from error

        self.end += length
        self.num_lines += len(records)
        return records


def _home_above(ledger: Path) -> Path | None:
    """The home of a ledger, which lies in HOME/sweeps/NAME."""
    return next((folder.parent for folder in ledger.parents if folder.name == "sweeps"), None)


def has_transaction(path: Path) -> bool:
    """Whether a ledger begins with a whole transaction, or is damaged there; reads no further.

    Otherwise a kill has left it so while its study was made.
    """
    with path.open("rb") as file:
        first = file.readline()
        if not first.endswith(b"\n"):
            return False
        (record,) = _decode_lines([first[:-1]])
        if record is None:
            return True
        rest = list(islice(file, record["left"]))
    return len(rest) == record["left"] and all(line.endswith(b"\n") for line in rest)


def as_text(record: Record) -> str:
    """A record as JSON, before it has a place in the file."""
    return json.dumps(record, separators=(",", ":"))


def encode_text(text: str, *, number: int, left: int) -> bytes:
    """One line of the file, of a record as JSON."""
    body = f'{text[:-1]},"n":{number},"left":{left}}}'.encode()
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def decode(content: bytes, *, origin: str, first: int = 0) -> tuple[list[Record], int]:
    """The records of all whole transactions at the start of `content`, and their length in bytes.

    `first` is the number of the first line. What a kill leaves is a torn last transaction, and is
    left out. A line that is not ours is skipped if our own numbering continues after it; a line of
    ours that is missing or bad, with good ones after it, cannot come from a kill:

    Raises:
        LedgerError: the content is damaged.
    """
    records, length, fault = _scan(content, first)
    if fault is not None:
        raise LedgerError(f"{origin}: {fault}")
    return records, length


def whole_prefix(content: bytes) -> bytes:
    """What precedes the first line that is missing or damaged, up to the last whole transaction."""
    _, length, _ = _scan(content, 0)
    return content[:length]


def _scan(content: bytes, first: int) -> tuple[list[Record], int, str | None]:
    """The records of whole transactions up to the first damage, their length, and what that is."""
    records: list[Record] = []
    whole_records = whole_length = position = 0
    fault, bad = None, None
    lines = content.split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    for number, (line, record) in enumerate(zip(lines, _decode_lines(lines), strict=True)):
        position += len(line) + 1
        if record is None:
            bad = number if bad is None else bad
            continue
        left = records[-1]["left"] if records else 0
        if record["n"] != first + len(records) or (left and record["left"] != left - 1):
            fault = f"damaged at line {number + 1} (a line before it is missing)"
            if bad is not None:
                fault = f"damaged at line {bad + 1} (its checksum does not match)"
            break
        records.append(record)
        if record["left"] == 0:
            whole_records, whole_length, bad = len(records), position, None
    return records[:whole_records], whole_length, fault


def good_records(content: bytes) -> list[Record]:
    """Every record of ours whose line is undamaged, wherever it is."""
    return [record for record in _decode_lines(content.split(b"\n")) if record is not None]


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
