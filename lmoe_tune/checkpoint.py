"""Checkpoints: written aside and renamed, named by epoch and checksum, loaded without unpickling objects.

A file is called `epoch-0003-<first 16 digits of its sha256>.pt`. The name is the manifest: a truncated or
flipped file no longer matches its own name and the one before it is used.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lmoe_tune.durable import write_durably

log = logging.getLogger(__name__)

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{16})\.pt")
KEEP = 2  # the newest may turn out to be damaged


def save(folder: Path, epoch: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `epoch` and drop all but the newest two; returns the file's path.

    Files of this and later epochs are of a course that was given up, as they were damaged: they go first.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    path = folder / f"epoch-{epoch:04d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".epoch-*.tmp"):  # a kill in the middle of a write left it
        stale.unlink(missing_ok=True)
    for given_up in list_newest_first(folder):
        if epoch_of(given_up) >= epoch:
            given_up.unlink(missing_ok=True)
    write_durably(path, content)
    for old in list_newest_first(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU; raises ValueError when it does not match its checksum."""
    content = path.read_bytes()
    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(content).hexdigest()[:16] != match[2]:
        raise ValueError(f"{path}: damaged (its content does not match the checksum in its name)")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest undamaged checkpoint of a folder, or None; damaged ones are named in the log."""
    for path in list_newest_first(folder):
        try:
            return load(path)
        except ValueError as error:
            log.warning("%s; using the one before it", error)
        except FileNotFoundError:
            continue  # whoever trains here has dropped it meanwhile
    return None


def list_newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (epoch_of(path), path.name), reverse=True)


def epoch_of(path: Path) -> int:
    """The epoch after which a checkpoint was written."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, f"{path} is no checkpoint"
    return int(match[1])
