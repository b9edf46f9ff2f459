"""What `list` found out about each sweep the last time: shown again if the files it came from have
not changed.

`HOME/cache/list.json` holds a row for each sweep with a hash of all files that it was found from,
so a row is used only if these files are unchanged. The file can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmoe_tune import __version__
from lmoe_tune.durable import read_object, write_aside
from lmoe_tune.errors import StorageError
from lmoe_tune.questions import FILE as QUESTIONS
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.schema import SCHEMA

Row = dict[str, Any]
FOUND_FROM = ("spec.yaml", "ledger.jsonl", "tracking.jsonl")
"""Files of a sweep; the questions of its home come on top."""


class Remembered:
    """The rows of a home's sweeps."""

    def __init__(self, home: Path) -> None:
        self._path = home / "cache" / "list.json"
        found = read_object(self._path)
        self._before = {name: one for name, one in found.items() if _is_known(one)}
        self._now: dict[str, Row] = {}
        self._questions = _hash_of(home / QUESTIONS)

    def row(self, folder: SweepFolder, find: Callable[[SweepFolder], Row]) -> Row:
        """A sweep's row: `find` it, unless it is known. A running sweep is always looked up."""
        if folder.is_running():
            return find(folder)

        found_from = self._hash(folder)
        known = self._before.get(folder.name)
        if known is None or known["found_from"] != found_from or _is_outdated(known["row"]):
            row: Row = json.loads(json.dumps(find(folder)))
            if self._hash(folder) != found_from or folder.is_running():
                return row  # it has changed meanwhile
            known = {"found_from": found_from, "row": row}
        self._now[folder.name] = known
        return dict(known["row"])

    def save(self) -> None:
        """Keep the rows for the next time, if the home can be written."""
        if self._now and self._now != self._before:
            with suppress(OSError, StorageError):
                self._path.parent.mkdir(exist_ok=True)
                write_aside(self._path, json.dumps(self._now).encode())

    def _hash(self, folder: SweepFolder) -> str:
        """A hash of everything that a row depends on: files, and the working directory."""
        where = [str(folder.path), os.getcwd(), os.environ.get("MLFLOW_TRACKING_URI", "")]
        parts = [__version__, str(SCHEMA), *where, self._questions]
        parts += [_hash_of(folder.path / name) for name in FOUND_FROM]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _hash_of(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def _is_outdated(row: Row) -> bool:
    """Whether it names a checkpoint that was deleted since, which no file of the sweep records."""
    checkpoint = (row.get("best") or {}).get("checkpoint")
    return checkpoint is not None and not os.path.exists(checkpoint)


def _is_known(found: Any) -> bool:
    return isinstance(found, dict) and "found_from" in found and isinstance(found.get("row"), dict)
