"""stdout and stderr that do not end a sweep: a pipe that is no longer read, a terminal that is
gone.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)
"""Of a pipe whose reader has ended, of a terminal that was closed."""


class PatientFile(io.FileIO):
    """A file descriptor that goes quiet for good once it cannot be written any more."""

    instead: Callable[[bytes], object] | None = None
    """Gets what is written, where something shares the terminal and writes with `write_out`."""

    def __init__(self, descriptor: int, *, always: bool) -> None:
        """Write to a descriptor.

        Args:
            always: go quiet whatever is wrong; else only if nobody reads.
        """
        super().__init__(descriptor, "w", closefd=False)
        self._always = always

    def write(self, content: object) -> int:
        data = memoryview(content).cast("B")  # type: ignore[arg-type]
        if self.instead is not None:
            self.instead(bytes(data))
            return len(data)

        return self.write_out(data)

    def write_out(self, data: bytes | memoryview) -> int:
        """Write to the descriptor itself."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if not self._always and error.errno not in GONE:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # for the processes that we start, too
        os.close(nowhere)
        return len(data)


def install() -> None:
    """Make stdout and stderr tolerant. What cannot be written is dropped; the exit code still says
    how it ended.

    Characters that the locale's encoding does not have are escaped. Data for a full disk are still
    an error.
    """
    for descriptor in (0, 1, 2):
        _refuse_to_be_closed(descriptor)
    sys.stdout = _patient(1, sys.stdout, always=False)
    sys.stderr = _patient(2, sys.stderr, always=True)


def patient_stderr() -> PatientFile:
    """The file below stderr: the one from `install`, else a new one."""
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    if isinstance(raw, PatientFile):
        return raw

    return PatientFile(2, always=True)


def _patient(descriptor: int, stream: object, *, always: bool) -> io.TextIOWrapper:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(PatientFile(descriptor, always=always)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=always or os.isatty(descriptor),
    )


def _refuse_to_be_closed(descriptor: int) -> None:
    """Where one of the three is closed, the next file to be opened would take its place."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
