"""The observer that fits stderr: a live table on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lmoe_tune.cli.lines import Lines
from lmoe_tune.cli.streams import patient_stderr


@contextmanager
def watching() -> Iterator[Lines]:
    """The observer of a command."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Lines()
        return
    from lmoe_tune.cli.live_table import LiveTable

    table = LiveTable(patient_stderr(), sys.stderr.encoding or "ascii")
    try:
        yield table
    finally:
        table.close()
