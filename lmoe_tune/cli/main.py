"""`lmoe-tune`: the commands, and how they end."""

from __future__ import annotations

import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lmoe_tune import __version__
from lmoe_tune.cli import confirm, data, detector, look, ready, report, run
from lmoe_tune.cli.options import HomeOption, set_home
from lmoe_tune.durable import keep_others_out
from lmoe_tune.errors import LmoeTuneError, SpecError, UsageError

app = typer.Typer(
    name="lmoe-tune",
    help="Hyperparameter search for out-of-distribution detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DEBUG = "LMOE_TUNE_DEBUG"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def options(
    home: HomeOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    set_home(home)
    if debug:
        os.environ[DEBUG] = "1"


for group in (run.app, look.app, confirm.app, report.app, detector.app, ready.app):
    app.add_typer(group)
app.add_typer(data.app)


def refuse_empty(words: Sequence[str]) -> None:
    """Raises UsageError where one of the words typed is empty, as a variable is that is not set."""
    for before, word in itertools.pairwise(["", *words]):
        if not word.strip():
            what = f"what follows {before}" if before.startswith("--") else "an argument"
        elif word.startswith("--") and word.count("=") == 1 and word.endswith("="):
            what = f"what follows {word}"
        else:
            continue
        raise UsageError(
            f"{what} is empty: give a value, or leave it out (a variable that is not set?)"
        )


def main() -> None:
    """Run the command line; every expected error is one message and an exit code."""
    code = 0
    keep_others_out()
    for stream in (sys.stdout, sys.stderr):
        _never_refuse(stream)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a sweep installs its own
    try:
        refuse_empty(sys.argv[1:])
        app()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except LmoeTuneError as error:
        if os.environ.get(DEBUG):
            raise
        sys.stderr.write(f"{_message(error)}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on with what is left\n")
        code = 130
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        sys.stderr.write(
            f"error: {type(error).__name__}: {error}\n  (run it again with --debug to see where)\n"
        )
        code = 1
    leave(code)


def _never_refuse(stream: object) -> None:
    """Escape the characters that the locale's encoding does not have, instead of raising."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _message(error: LmoeTuneError) -> str:
    if not isinstance(error, SpecError):
        return f"error: {error}"
    count = len(error.problems)  # the lines stay as they are: editors jump to file:line:column
    return f"{error}\n{count} problem{'s' if count != 1 else ''}; nothing was started"


def leave(code: int) -> None:
    """End the process at once: tearing down what was imported takes a second, and nothing is left to save."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
