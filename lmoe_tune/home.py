"""The home: the folder that sweeps, baselines and decoded images are kept in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lmoe_tune.arguments import refuse_other
from lmoe_tune.errors import UsageError
from lmoe_tune.wording import masked

VARIABLE = "LMOE_TUNE_HOME"
DEFAULT = "lmoe_runs"  # in the working directory
_VARIABLE = re.compile(r"(^|/)\$\w|\$\{")


def resolve_home(given: str | Path | None = None, *, called: str = "home") -> Path:
    """The home as an absolute path: as given, else LMOE_TUNE_HOME, else ./lmoe_runs. It need not
    exist.

    Args:
        given: None takes the default; `~` is the user's own folder.
        called: how a message names what was given.

    Raises:
        UsageError: it is empty, of an unknown user, a file, or an address of an object store.
    """
    if given is None:
        called, given = VARIABLE, os.environ.get(VARIABLE, "")
        if not given.strip():  # set but empty is as good as not set
            called, given = "the home", DEFAULT

    refuse_other(given, called, str, Path)
    text = str(given)
    if not text.strip():
        raise UsageError(f"{called} is empty, but must be a folder")
    _refuse_object_store(text, called)

    try:
        home = Path(text).expanduser().resolve()
    except RuntimeError as error:
        raise UsageError(
            f"{called} is '{text}', but the folder that '{text.split('/')[0]}' stands for is unknown; "
            "write the path in full"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{called} is '{text}', but must be a folder: {reason}") from error

    if _VARIABLE.search(text) and not home.exists():
        raise UsageError(
            f"{called} is '{text}', but contains a variable that the shell did not replace: write it in full"
        )

    _refuse_file(home, f"{called} is '{text}'")

    return home


def is_default(home: Path) -> bool:
    """Whether a command that is typed here without --home works in this home."""
    try:
        return resolve_home() == home
    except UsageError:
        return False


def _refuse_object_store(text: str, called: str) -> None:
    """Raises UsageError for an address: the ledger is appended to and locked, which an object store cannot do."""
    kind, is_address, _ = text.partition(":/")  # a Path has taken the second slash away
    if is_address and kind.isalnum():
        raise UsageError(
            f"{called} is '{masked(text)}', but must be a folder: the ledger in it is appended to and locked. "
            "Mount storage that the driver and all workers share (NFS, Lustre, a ReadWriteMany volume) and name "
            "its path; files in MLflow may lie in an object store all the same"
        )


def _refuse_file(home: Path, what: str) -> None:
    """Raises UsageError if the folder, or one that it would be in, is a file."""
    for path in (home, *home.parents):
        try:
            if path.is_dir():
                return

            if path.exists():
                which = "that" if path == home else str(path)
                raise UsageError(f"{what}, but must be a folder, and {which} is a file")
        except OSError:  # it cannot be checked here; the code that uses it says so
            return
