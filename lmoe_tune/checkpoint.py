"""Checkpoints: written aside and renamed, named by epoch and checksum, loaded without unpickling
objects.

A file is called `epoch-0003-<first 16 digits of its sha256>.pt`. The name is the manifest: a
truncated or corrupted file no longer matches its own name, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch

from lmoe_tune.durable import Aside, writing

log = logging.getLogger(__name__)

_NAME = re.compile(r"epoch-(\d+)-([0-9a-f]{16})\.pt")
KEEP = 2  # the newest may turn out to be damaged
_LATE = "result.json"
"""The archive's member for what is known only after the weights are written."""
_SYNCED_APART = 1 << 23
"""From this many bytes on, weights are synced before the rest is known; fewer, with the rest."""


class Writer:
    """Writes the checkpoints of one training into a folder, each while its epoch is evaluated.

    `begin` takes the weights once an epoch's steps are done: they are put into the file and
    checksummed in a separate thread. `finish` adds what is known only after the evaluation and
    renames the file: it is there when `finish` returns, and not before. Leaving the `with` block
    drops what was begun and not finished.
    """

    def __init__(self, folder: Path) -> None:
        """The folder is made with the first checkpoint."""
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._begun: tuple[int, Future[_Begun]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()
        self._pool.shutdown()

    def begin(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Begin to write the state after `epoch`; its tensors must not change before `finish`."""
        self._drop()
        self._begun = epoch, self._pool.submit(_begin, self._folder, epoch, dict(state))

    def finish(self, late: Mapping[str, Any]) -> Path:
        """Add the plain values not known before, and drop all but the newest two; returns the
        file's path.

        Existing files of this and later epochs belong to an abandoned course: they were damaged, or
        ahead of the records. They are deleted first.

        Raises:
            StorageError: it cannot be written; the one before it is still there.
        """
        assert self._begun is not None, "nothing was begun"
        epoch, future = self._begun
        with writing(self._folder / f"epoch-{epoch:04d}-….pt"):
            begun = future.result()
            begun.add(late)

        path = self._folder / f"epoch-{epoch:04d}-{begun.checksum}.pt"
        with writing(path):
            for given_up in list_newest_first(self._folder):
                if epoch_of(given_up) >= epoch:
                    given_up.unlink(missing_ok=True)
            begun.place(path)
            self._begun = None
            for old in list_newest_first(self._folder)[KEEP:]:
                old.unlink(missing_ok=True)
        return path

    def _drop(self) -> None:
        if self._begun is None:
            return

        _, future = self._begun
        self._begun = None
        if future.exception() is None:
            future.result().aside.discard()


class _Begun:
    """A file whose first part is written: torch's zip archive without its end."""

    def __init__(self, aside: Aside, content: io.BytesIO) -> None:
        self.aside, self._content = aside, content
        with zipfile.ZipFile(content) as archive:
            self._folder = archive.namelist()[0].partition("/")[0]
            # Adding a member changes what follows: the last one, which is small, and the directory.
            self._written = max(member.header_offset for member in archive.infolist())
        first = content.getbuffer()[: self._written]
        self._hash = hashlib.sha256(first)
        aside.write(first, sync=len(first) >= _SYNCED_APART)

    def add(self, late: Mapping[str, Any]) -> None:
        """Add the member with what was not known before; this decides the end."""
        if late:
            with zipfile.ZipFile(self._content, "a") as archive:
                archive.writestr(f"{self._folder}/{_LATE}", json.dumps(dict(late)))
        self._hash.update(self._content.getbuffer()[self._written :])

    @property
    def checksum(self) -> str:
        """The checksum of the whole file; after `add`."""
        return self._hash.hexdigest()[:16]

    def place(self, path: Path) -> None:
        """Write the end, and give the file its name."""
        self.aside.write(self._content.getbuffer()[self._written :], sync=True)
        self.aside.place(path, sync=True)


def _begin(folder: Path, epoch: int, state: dict[str, Any]) -> _Begun:
    content = io.BytesIO()
    torch.save(state, content)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".epoch-*.tmp"):  # a kill in the middle of a write left it
        stale.unlink(missing_ok=True)
    aside = Aside(folder / f"epoch-{epoch:04d}.pt")
    try:
        return _Begun(aside, content)
    except BaseException:
        aside.discard()
        raise


def save(folder: Path, epoch: int, state: Mapping[str, Any]) -> Path:
    """Write a complete state, as `Writer` does; returns the file's path."""
    with Writer(folder) as writer:
        writer.begin(epoch, state)
        return writer.finish({})


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
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith(f"/{_LATE}"):
                state |= json.loads(archive.read(name))
    if state["epoch"] != int(match[1]):
        raise ValueError(f"{path}: damaged (its content is of epoch {state['epoch']})")
    return state


def load_newest(folder: Path, *, up_to: int | None = None) -> dict[str, Any] | None:
    """The newest undamaged checkpoint of a folder, or None; damaged ones are named in the log.

    Args:
        up_to: the last epoch that may be continued from; None: any.
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


def load_after(folder: Path, epoch: int) -> dict[str, Any] | None:
    """The checkpoint of this very epoch, or None; a damaged one is named in the log."""
    for path in list_newest_first(folder):
        if epoch_of(path) != epoch:
            continue
        try:
            return load(path)
        except FileNotFoundError:
            continue  # the process that trains here has dropped it meanwhile
        except ValueError as error:
            log.warning("%s", error)
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
