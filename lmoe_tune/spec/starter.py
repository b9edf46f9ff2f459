"""A spec to start with: a shipped search space under the user's own name for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

from lmoe_tune.durable import cannot_write, write_durably
from lmoe_tune.errors import UsageError
from lmoe_tune.spec.locate import shipped_specs
from lmoe_tune.spec.model import NAME_MUST_BE, NAME_PATTERN
from lmoe_tune.wording import did_you_mean, shown

FOLDER = Path("spaces")  # of the working directory
OWN_IMAGES = "folder"  # the space for a name that is not a shipped space's


def write_starter(name: str, space: str | None) -> tuple[Path, str]:
    """Write `spaces/NAME.yaml`, a copy of a shipped search space with its comments.

    Args:
        name: the sweep's name, with or without `.yaml`.
        space: the shipped space; None is the one with this name, else the one for your own images.

    Returns:
        The file, and the space that it was made from.

    Raises:
        UsageError: there is such a file already, or no such space.
        StorageError: the file cannot be written; then none is left.
    """
    stem = re.sub(r"\.ya?ml$", "", name)
    if not re.fullmatch(NAME_PATTERN, stem):
        raise UsageError(f"NAME is {shown(name)}, but must be {NAME_MUST_BE}")

    shipped = shipped_specs()
    chosen = space or (stem if stem in shipped else OWN_IMAGES)

    if chosen not in shipped:
        raise UsageError(
            f"--from is {shown(chosen)}, but must be one of {', '.join(shipped)}{did_you_mean(chosen, shipped)}"
        )

    path = FOLDER / f"{stem}.yaml"
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already; edit it, or choose another name")

    content = renamed(shipped[chosen].read_text(encoding="utf-8"), chosen, stem, path)
    try:
        FOLDER.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise UsageError(
            f"{FOLDER} is a file, but must be a folder; move it, or work in another folder"
        ) from error
    except OSError as error:
        raise cannot_write(FOLDER, error) from error

    write_durably(path, content.encode())

    return path, chosen


def renamed(text: str, space: str, name: str, path: Path) -> str:
    """The text of the space `space` with another name, experiment and, in its comments, path."""
    if name[0].isalpha() and isinstance(yaml.safe_load(name), str):
        word = name
    else:
        word = f'"{name}"'
    text = re.sub(rf"^name: {space}$", f"name: {word}", text, flags=re.MULTILINE)
    text = re.sub(rf"experiment: {space}\b", f"experiment: {word}", text)
    return re.sub(rf"`lmoe-tune ([a-z ]+) {space}`", rf"`lmoe-tune \1 {path}`", text)
