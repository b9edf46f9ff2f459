"""Options that several commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home as home_of

if TYPE_CHECKING:
    from lmoe_tune.spec import Dataset, DataSpec, LoadedSpec


def format_option(*formats: str) -> Any:
    """The option that chooses one of these formats; another one is a UsageError that names them."""

    def checked(value: str) -> str:
        if value not in formats:
            raise UsageError(f"--format is '{value}', but must be one of {', '.join(formats)}")
        return value

    return typer.Option(
        "--format", metavar="|".join(formats), callback=checked, help="How to print it."
    )


SpecArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A search-space file, or the name of a shipped one (digits, cars)."
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]
OptionalNameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="The sweep's name; the latest unfinished one by default."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=V", help="Override a setting of the spec; may be repeated."),
]
HomeOption = Annotated[
    str | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Where sweeps are kept (else LMOE_TUNE_HOME, else ./lmoe_runs).",
    ),
]
FormatOption = Annotated[str, format_option("table", "json", "csv")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]

_home: str | None = None  # given before the command: lmoe-tune --home DIR list


def set_home(home: str | None) -> None:
    """Take the home given before the command's name."""
    global _home
    _home = home


def resolve_home(home: str | None) -> Path:
    """The home: given after the command, before it, by the environment, or the default; absolute."""
    return home_of(_home if home is None else home, called="--home")


def load(
    argument: str,
    overrides: list[str] | None,
    *,
    name: str | None = None,
    bounded: bool = False,
) -> LoadedSpec:
    """Find, read and check a spec; says on stderr which file it took where that is not obvious.

    Args:
        name: the sweep's name, instead of the spec's.
        bounded: the command line ends the sweep, so the spec need not.
    """
    from lmoe_tune.api.loading import load_spec

    return load_spec(_found(argument), overrides or (), name=name, bounded=bounded)


def load_data(
    argument: str, overrides: list[str] | None, *, look_for_data: bool = True
) -> DataSpec:
    """The section `data` of a spec alone: nothing else in it need be there, or right."""
    from lmoe_tune import spec
    from trainables import declarations

    return spec.load_data(
        _found(argument),
        overrides=overrides or [],
        declarations=declarations(),
        missing=_lacking if look_for_data else None,
    )


def _found(argument: str) -> Path:
    from lmoe_tune.spec import find_spec

    path = find_spec(argument)
    if str(path) != argument:
        typer.echo(f"using {path}", err=True)

    return path


def _lacking(dataset: Dataset) -> str | None:
    from lmoe_tune.readers.recognition import missing

    return missing(dataset.dataset, dataset.root, labelled=False)
