"""Checkpoints: written aside and renamed, named by epoch and checksum, loaded without unpickling
objects.

A file is called `epoch-0003-<first 16 digits of its sha256>.pt`. The name is the manifest: a
truncated or flipped file no longer matches its own name and the one before it is used.
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

from lmoe_tune.durable import write_durably, writing

log = logging.getLogger(__name__)

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{16})\.pt")
KEEP = 2  # the newest may turn out to be damaged


def save(folder: Path, epoch: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `epoch` and drop all but the newest two; returns the file's path.

    Existing files of this and later epochs belong to an abandoned course, as they were damaged:
    they are deleted first.

    Raises:
        StorageError: it cannot be written; the one before it is still there.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    path = folder / f"epoch-{epoch:04d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    with writing(path):
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
    """Read one checkpoint onto the CPU.

    Raises:
        ValueError: it is damaged: it does not match its name, or cannot be read.
        FileNotFoundError: it is not there.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"{path}: damaged (it cannot be read: {error.strerror or error})"
        ) from error
    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(content).hexdigest()[:16] != match[2]:
        raise ValueError(f"{path}: damaged (its content does not match the checksum in its name)")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if state["epoch"] != int(match[1]):
        raise ValueError(f"{path}: damaged (its content is of epoch {state['epoch']})")
    return state


def load_newest(folder: Path, *, up_to: int | None = None) -> dict[str, Any] | None:
    """The newest undamaged checkpoint of a folder, or None; damaged ones are named in the log.

    Args:
        up_to: the last epoch that may be continued from; None is any.
    """
    num_damaged = 0
    for path in list_newest_first(folder):
        if up_to is not None and epoch_of(path) > up_to:
            continue
        try:
            return load(path)
        except ValueError as error:
            num_damaged += 1
            log.warning("%s; using the one before it", error)
        except FileNotFoundError:
            continue  # the process that trains here has dropped it meanwhile
    if num_damaged:
        log.warning(
            "%s: no undamaged checkpoint is left; training starts again with the first epoch",
            folder,
        )
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
