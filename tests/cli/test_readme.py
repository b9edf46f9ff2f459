"""The README and the documentation: every command in them is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from lmoe_tune.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docker" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"SPEC": "digits", "NAME": "digits", "[NAME]": "digits", "…": "list"}


def commands(text: str) -> set[str]:
    """What follows `lmoe-tune` on the lines of code blocks and in inline code, comments left out."""
    blocks = re.findall(r"^(?: {4})?(?:\$ )?lmoe-tune (.+)$", text, flags=re.MULTILINE)
    inline = re.findall(r"`lmoe-tune ([^`]+)`", text)
    found = {re.split(r"\s{2,}#", command)[0].strip() for command in [*blocks, *inline]}
    return {command for command in found if "|" not in command and not is_a_name(command)}


def is_a_name(command: str) -> bool:
    """Whether prose only speaks of the command: `lmoe-tune search`."""
    return command in {"search", "confirm", "predict", "export"}


def all_commands() -> list[tuple[str, str]]:
    """(page, command), each command once."""
    pages: dict[str, str] = {}
    for page in PAGES:
        for command in commands(page.read_text(encoding="utf-8")):
            pages.setdefault(command, page.name)
    return sorted((page, command) for command, page in pages.items())


def test_there_are_commands_in_the_readme() -> None:
    assert len(commands(PAGES[0].read_text(encoding="utf-8"))) > 15


def test_the_readme_has_every_command() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `lmoe-tune ([a-z-]+)", readme, flags=re.MULTILINE))
    assert rows == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_readme_links_to_files_that_there_are() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_that_is_printed_anywhere_is_understood() -> None:
    wrong = []
    for page, command in all_commands():
        try:
            understand(command)
        except Exception as error:
            wrong.append(f"{page}: lmoe-tune {command}: {error}")
    assert wrong == []


def test_a_command_that_is_not_there_is_found() -> None:
    with pytest.raises(Exception, match="No such command"):
        understand("serch digits")
    with pytest.raises(Exception, match="No such option"):
        understand("search digits --tirals 3")


def understand(command: str) -> None:
    """Parse it; raises what Click says where it is none."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    group = typer.main.get_command(app)
    context = group.make_context("lmoe-tune", list(words), resilient_parsing=False)
    name, subcommand, rest = group.resolve_command(
        context, [*context._protected_args, *context.args]
    )
    assert subcommand is not None, f"no command {name}"
    subcommand.make_context(name, rest, parent=context)
