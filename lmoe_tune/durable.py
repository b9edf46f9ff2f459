"""Files that are at any moment either the old version or the new one, complete; text in them is
UTF-8.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmoe_tune.errors import StorageError, UsageError

WRITABLE = "make it writable"
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
ADVICE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room: your quota there is used up",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: WRITABLE,
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
}


def read_text(path: Path) -> str:
    """The text of a file of ours: UTF-8, whatever the locale says.

    Raises:
        UsageError: it holds something else.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UsageError(
            f"{path}: byte 0x{byte:02x} at {error.start} is not UTF-8; the file is damaged, "
            "or another program has written it"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_durably(path: Path, content: bytes | memoryview, *, sync: bool = True) -> None:
    """Write `path` aside and rename it into place; its folder must exist.

    Args:
        sync: wait until a power cut cannot lose it.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(path):
        aside = Aside(path)
        try:
            aside.write(content, sync=sync)
            aside.place(path, sync=sync)
        except BaseException:
            aside.discard()
            raise


def write_aside(path: Path, content: bytes) -> None:
    """Like `write_durably`, but a power cut may lose it: for what can be written again from
    something else.
    """
    write_durably(path, content, sync=False)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says of an OSError in the block that `path` cannot be written, and what to do about it, as a
    StorageError.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error to raise if `path` cannot be written. The caller adds what to type then."""
    advice = ADVICE.get(error.errno or 0, "see what is wrong with that disk")
    if error.errno in IN_THE_WAY:
        advice = "something else has that name: move it, or choose another place"
    elif advice == WRITABLE and not os.path.lexists(path):
        there = next(folder for folder in path.absolute().parents if folder.exists())
        advice = f"make {there} writable"
    found = StorageError(f"{path}: cannot be written ({error.strerror or error}); {advice}")
    if error.errno in IN_THE_WAY or ADVICE.get(error.errno or 0) == WRITABLE:
        found.exit_code = UsageError.exit_code  # the user chose that place
    return found


def owner_of(path: Path) -> str:
    """The user whom a file or folder belongs to."""
    try:
        return path.owner()
    except KeyError:  # a number without a name, as in a container
        return f"the user {path.stat().st_uid}"


def keep_others_out() -> None:
    """What this process and those it starts create is never writable for everyone, whatever the
    user's umask.
    """
    os.umask(os.umask(0o077) | 0o002)


def sync_folder(folder: Path) -> None:
    """Make the creation or renaming of a file in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Aside:
    """A file that is written piece by piece under another name, and renamed when it is whole."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be created.

        Args:
            path: what it is to be called like; the folder is the one that it will be in.
        """
        folder, name = os.path.split(path)
        who = f"{os.getpid()}-{threading.get_native_id()}"
        self._path = os.path.join(folder, f".{name}.{who}.tmp")
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed by `place` or `discard`

    def write(self, content: bytes | memoryview, *, sync: bool) -> None:
        """Add to it, and wait until the disk has it if wanted."""
        self._file.write(content)
        if sync:
            self._file.flush()
            os.fsync(self._file.fileno())

    def place(self, path: Path, *, sync: bool) -> None:
        """Rename it, and wait until the disk has the new name if wanted."""
        self._file.close()
        os.replace(self._path, path)
        if sync:
            sync_folder(path.parent)

    def discard(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.unlink(self._path)
