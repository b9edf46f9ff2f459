"""The README: every command in it is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from lmoe_tune.cli.main import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PLACEHOLDERS = {"SPEC": "digits", "NAME": "digits", "[NAME]": "digits", "…": "list"}


def commands() -> list[str]:
    """What follows `lmoe-tune` on the lines of code blocks and in inline code, comments left out."""
    blocks = re.findall(r"^(?: {4})?(?:\$ )?lmoe-tune (.+)$", README, flags=re.MULTILINE)
    inline = re.findall(r"`lmoe-tune ([^`]+)`", README)
    found = [re.split(r"\s{2,}#", command)[0].strip() for command in [*blocks, *inline]]
    return sorted({command for command in found if "|" not in command})


def test_there_are_commands_in_it() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_understood(command: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    group = typer.main.get_command(app)
    context = group.make_context("lmoe-tune", list(words), resilient_parsing=False)
    name, subcommand, rest = group.resolve_command(
        context, [*context._protected_args, *context.args]
    )
    assert subcommand is not None, f"no command {name}"
    subcommand.make_context(name, rest, parent=context)
