"""`lmoe-tune` in this process: importing all that a command needs takes seconds."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

DROPPED = ("MLFLOW_", "LMOE_TUNE_", "RAY_", "TUNE_", "COLUMNS", "FORCE_COLOR")
Done = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would change what a command does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    return kept | more


def run_in(folder: Path, *arguments: str, **more: str) -> Done:
    """Run a command in a folder, as its process would; `more` are variables of the environment."""
    from lmoe_tune.cli import main

    with (
        contextlib.chdir(folder),
        patch.dict(os.environ, environment(**more), clear=True),
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as errors,
    ):
        try:
            code = main.run(arguments)
        except Exception:  # with --debug
            traceback.print_exc()
            code = 1
        finally:
            gc.enable()  # what reads a ledger leaves it off, as its process ends soon
    return Done(arguments, code, output.getvalue(), errors.getvalue())
