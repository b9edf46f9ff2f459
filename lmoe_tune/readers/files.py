"""Images in folders: which files are images, and which of the listed ones are there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmoe_tune.readers.layout import Entry, LayoutError

SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
        ".pbm", ".pnm", ".jp2",
    }
)  # fmt: skip
MAX_DEPTH = 8  # folders below a root; a link to a folder above it would never end

_OF_NO_ONE = frozenset(
    {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
)
"""Folders that operating systems leave behind."""


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files (macOS's ._x.jpg among them) are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.is_dir()]
    except OSError:
        return []
    return sorted(
        name for name in names if not name.startswith(".") and name.lower() not in _OF_NO_ONE
    )


def has_images(folder: Path) -> bool:
    """Whether an image lies directly in a folder."""
    try:
        with os.scandir(folder) as found:
            return any(is_image(entry.name) for entry in found)
    except OSError:
        return False


def images_below(folder: Path, depth: int = 0) -> Iterator[str]:
    """Paths of the images in a folder and in those below it, relative to it, with forward slashes."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise LayoutError(
            f"{folder} cannot be read ({error.strerror})", "make it readable for this user"
        ) from error
    below = set(subfolders(folder)) if depth < MAX_DEPTH else set()
    for name in names:
        if name in below:
            for path in images_below(folder / name, depth + 1):
                yield f"{name}/{path}"
        elif is_image(name):
            yield name


def present(root: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries whose file is there, with its name as it is on the disk, and the paths of the others.

    Lists every folder once instead of asking for every file. A name that differs in case, or in its suffix
    (a copy that was converted), is taken for the file.
    """
    names: dict[str, set[str]] = {}
    others: dict[str, dict[str, str]] = {}
    found: list[Entry] = []
    absent: list[str] = []
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if folder not in names:
            names[folder] = _names_in(root / folder)
        if name in names[folder]:
            found.append(entry)
            continue
        if folder not in others:
            others[folder] = _other_names(names[folder])
        actual = others[folder].get(name.lower()) or others[folder].get(
            os.path.splitext(name)[0].lower()
        )
        if actual is None:
            absent.append(entry.path)
        else:
            path = f"{folder}/{actual}" if folder else actual
            found.append(Entry(path, entry.label, entry.official))
    return found, absent


def read_lines(path: Path) -> list[str]:
    """The lines of a list, stripped, without empty ones. Raises LayoutError where it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise LayoutError(
            f"{path} cannot be read ({error.strerror})", "make it readable for this user"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The lines of a list, each split once: what follows the first blank may hold blanks itself.

    Raises LayoutError with the line that has no second column.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        first, *rest = re.split(r"[ \t]+", line, maxsplit=1)
        if not rest:
            raise LayoutError(
                f"{path}, entry {number} is '{line}', but must have two columns",
                "unpack the file anew",
            )
        pairs.append((first, rest[0]))
    return pairs


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _other_names(names: Iterable[str]) -> dict[str, str]:
    """The images' actual names by their names in lower case, with and without suffix."""
    images = sorted((name for name in names if is_image(name)), reverse=True)
    stems = {os.path.splitext(name)[0].lower(): name for name in images}
    return stems | {name.lower(): name for name in images}
