"""What to type next: every command line that a message, a table or a page offers is put together here.

From typed values, so that a name or a path with a space in it is quoted, an option that was renamed is found by
the type checker, and the home is named where the command would otherwise look in another one. Tests parse each of
these with the real command line, type each where it is printed, and find commands that are written elsewhere. To add
one: a function with the values that it depends on, and a line in `tests/test_advice.py` and
`tests/cli/test_advice_typed.py`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from lmoe_tune.home import is_default

PROGRAM = "lmoe-tune"
NAME = "NAME"  # placeholder for any sweep, data or image
SPEC = "SPEC"
IMAGES = "IMAGE…"
ALLOW_CHANGES = "--allow-changes (from Python: allow_changes=True)"

_Value = str | int | float | Path | bool | None


def search(spec: str | Path = "digits", *, home: Path | None = None) -> str:
    """Start a sweep, or continue it."""
    return _typed("search", spec, home=home)


def resume(
    name: str,
    *,
    trials: str | int | None = None,
    time: str | None = None,
    gpu_hours: str | float | None = None,
    max_failed: str | int | None = None,
    retry_failed: bool = False,
    home: Path | None = None,
) -> str:
    """Continue a sweep; budgets as they are typed: `+8` for eight more, `24` for that many in
    all.
    """
    return _typed(
        "resume", name, home=home, trials=trials, time=time, gpu_hours=gpu_hours,
        max_failed=max_failed, retry_failed=retry_failed,
    )  # fmt: skip


def repeat(name: str, trial: int, *, home: Path | None = None) -> str:
    """Train a trial of a sweep once more."""
    return _typed("train", name, home=home, trial=trial)


def leaderboard(name: str, *, home: Path | None = None) -> str:
    """All trials of a sweep."""
    return _typed("leaderboard", name, home=home)


def confirm(
    name: str,
    *,
    seeds: int | None = None,
    top: int | None = None,
    splits: Sequence[int] | None = None,
    tuned_comparators: bool = False,
    allow_unfinished: bool = False,
    reseed: int | None = None,
    home: Path | None = None,
) -> str:
    """Train the best trials again with fresh seeds, and test them."""
    return _typed(
        "confirm", name, home=home, seeds=None if reseed else seeds, top=top, reseed=reseed,
        splits=",".join(map(str, splits)) if splits else None,
        tuned_comparators=tuned_comparators, allow_unfinished=allow_unfinished,
    )  # fmt: skip


def export(
    name: str, out: str | Path, *, trial: int | None = None, home: Path | None = None
) -> str:
    """A detector in a folder."""
    return _typed("export", name, home=home, out=out, trial=trial)


def predict(folder: str | Path) -> str:
    """Run a detector on images."""
    return f"{_typed('predict', folder)} {IMAGES}"


def sync(name: str, *, home: Path | None = None) -> str:
    """Deliver to MLflow what it lacks."""
    return _typed("sync", name, home=home)


def ui(name: str, *, home: Path | None = None) -> str:
    """MLflow's own pages, opened on a sweep's comparison."""
    return _typed("ui", name, home=home)


def inspect(spec: str | Path = SPEC, *, home: Path | None = None) -> str:
    """Inspect a spec's data, and report what is wrong with them."""
    return _typed("data", "inspect", spec, home=home)


def doctor(*, rebuild: str | None = None, home: Path | None = None) -> str:
    """Check this machine and the home; or rebuild a sweep's ledger from its trials' records."""
    return _typed("doctor", home=home, rebuild=rebuild)


def setting(key: str, value: object) -> str:
    """The option that gives a setting of the spec another value; `…` for one that the user must know."""
    if isinstance(value, bool):
        value = str(value).lower()
    return f"--set {shlex.quote(f'{key}={value}') if value != '…' else f'{key}=…'}"


def at_home(home: Path) -> str:
    """The option that names a home."""
    return f"--home {shlex.quote(_short(home))}"


def setup(extra: str) -> str:
    """Install what an optional feature needs."""
    return f"pip install {shlex.quote(f'{PROGRAM}[{extra}]')}"


def _typed(*words: _Value, home: Path | None = None, **options: _Value) -> str:
    """The command of these words; an option is left out where it is None or False."""
    typed = [PROGRAM]
    for word in map(str, words):
        typed.append(
            f"./{word}" if word.startswith("-") else word
        )  # a path that looks like an option

    for name, value in options.items():
        if value is None or value is False:
            continue

        typed.append(f"--{name.replace('_', '-')}")
        if value is not True:
            typed.append(f"{value:g}" if isinstance(value, float) else str(value))

    if home is not None and not is_default(home):
        typed += ["--home", _short(home)]

    return shlex.join(typed)


def _short(path: Path) -> str:
    """The path as a user would type it here: relative if it lies below the working directory."""
    try:
        relative = os.path.relpath(path)
    except OSError:  # the working directory is gone
        return str(path)

    if relative.startswith(".."):
        return str(path)

    return relative
