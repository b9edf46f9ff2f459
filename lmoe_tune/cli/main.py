"""`lmoe-tune`: the commands, and how they end."""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO, TypeVar

import typer

from lmoe_tune import __version__
from lmoe_tune.cli import confirm, data, detector, doctor, report, results, search, spec, streams
from lmoe_tune.cli.options import HomeOption, set_home
from lmoe_tune.durable import keep_others_out
from lmoe_tune.errors import LmoeTuneError, SpecError, UsageError
from lmoe_tune.processes import settle_home
from lmoe_tune.wording import printable, shortened

app = typer.Typer(
    name="lmoe-tune",
    help="Hyperparameter search for out-of-distribution detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help cuts no option name, however narrow the terminal
    context_settings={"help_option_names": ["-h", "--help"]},
)
Error = TypeVar("Error", bound=BaseException)
DEBUG = "LMOE_TUNE_DEBUG"
_SETTING = re.compile(
    r"(data|model|train|search|budget|space|fixed|objective|resources|tracking)\.\w[\w.]*="
)
MENDABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
    errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip
"""What the user can fix in a path that was typed or set."""


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


for group in (search, results, confirm, report, detector, spec, doctor, data):
    app.add_typer(group.app)


def refuse_slips(words: Sequence[str]) -> None:
    """Raises UsageError if one of the words typed is empty, like an unset variable, or is a setting
    without its `--set`.
    """
    for before, word in itertools.pairwise(["", *words]):
        is_alone = not before.startswith("-") and not os.path.exists(word)
        if is_alone and _SETTING.match(word):
            raise UsageError(
                f"'{shortened(word)}' needs its own --set before it: --set A=1 --set B=2"
            )

        if not word.strip():
            if before.startswith("--"):
                what = f"what follows {before}"
            else:
                what = "an argument"
        elif word.startswith("--") and word.count("=") == 1 and word.endswith("="):
            what = f"what follows {word}"
        else:
            continue

        raise UsageError(
            f"{what} is empty: give a value, or leave it out (a variable that is not set?)"
        )


def main() -> None:
    """Run the command line in this process, and end it."""
    keep_others_out()
    streams.install()
    settle_home()
    for number in (signal.SIGTERM, signal.SIGHUP):  # until a sweep installs its own
        if signal.getsignal(number) != signal.SIG_IGN:  # as it is after nohup
            signal.signal(number, signal.default_int_handler)

    leave(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run the command that was typed; every expected error becomes one message and an exit code,
    which is returned.
    """
    try:
        refuse_slips(words)
        app(words, prog_name="lmoe-tune")
    except SystemExit as exit_:
        # What Typer makes of a KeyboardInterrupt, and of an EOFError: it says "Aborted!", not why.
        if _cause(exit_, KeyboardInterrupt) is not None:
            return _interrupted()
        if (fault := _cause(exit_, EOFError)) is not None:
            message, code = _unforeseen(fault)
            sys.stderr.write(f"error: {message}\n")
            return code
        return exit_.code if isinstance(exit_.code, int) else 1
    except LmoeTuneError as error:
        _debug()
        sys.stderr.write(f"{_message(error)}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        _debug()
        if isinstance(error, OSError) and _is_full(sys.stdout):
            return 1  # `leave` says so

        message, code = _unforeseen(error)
        sys.stderr.write(f"error: {message}\n")
        return code
    return 0


def _debug() -> None:
    """With --debug, where an error comes from, above its message."""
    if os.environ.get(DEBUG):
        traceback.print_exc()


def _cause(error: BaseException | None, kind: type[Error]) -> Error | None:
    """The first error of this kind that led to this one."""
    while error is not None and not isinstance(error, kind):
        hidden = error.__suppress_context__  # by who has said so already
        error = error.__cause__ or (None if hidden else error.__context__)
    return error


def _interrupted() -> int:
    sys.stderr.write("\ninterrupted; the same command continues with what is left\n")
    return 130


def _is_full(stream: TextIO) -> bool:
    """Whether what was printed cannot be written: it is still there, and fails once more."""
    try:
        stream.flush()
    except OSError:
        return True
    return False


def _unforeseen(error: Exception) -> tuple[str, int]:
    """Message and exit code of an error for which nothing below has a message."""
    if isinstance(error, UnicodeEncodeError):
        name, encoding = printable(error.object), sys.getfilesystemencoding()
        text = f"'{shortened(name)}' cannot be written in the locale's encoding, {encoding}"
        return f"{text}; set a UTF-8 locale, such as LC_ALL=C.UTF-8", 2

    if isinstance(error, OSError) and error.errno in MENDABLE and error.filename is not None:
        return f"{printable(str(error.filename))}: {error.strerror}", 2

    text = f"{type(error).__name__}: {error}{_in_users_code(error)}"
    return f"{text}\n  (run it again with --debug to see where)", 1


def _in_users_code(error: Exception) -> str:
    """Where in a module of the user's own it was raised, if it was: their method, for instance."""
    root = Path(__file__).parents[2]
    others = (
        *map(str, (root / "lmoe_tune", root / "trainables")),
        sys.prefix,
        sys.base_prefix,
        "<",
    )
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def _message(error: LmoeTuneError) -> str:
    if not isinstance(error, SpecError):
        return f"error: {error}"

    count = len(error.problems)  # the lines stay as they are: editors jump to file:line:column
    return f"{error}\n{count} problem{'s' if count != 1 else ''}; nothing was started"


def leave(code: int) -> None:
    """End the process at once: tearing down what was imported takes a second, and nothing is left
    to save.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:  # of data for a full disk, say
        sys.stderr.write(f"error: stdout cannot be written ({error.strerror})\n")
        code = code or 1

    os._exit(code)


if __name__ == "__main__":
    main()
