"""Images in folders: which files are images, and which of the listed ones are there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmoe_tune.readers.layout import Entry, LayoutError
from lmoe_tune.readers.names import folded, read_lines, some
from lmoe_tune.wording import printable

SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
        ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
    }
)  # fmt: skip
MAX_DEPTH = 8  # folders below a root
UNPACK_AGAIN = "unpack the archive again"

_OF_NO_ONE = frozenset(
    {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
)
"""Folders that operating systems leave behind."""


def is_image(name: str) -> bool:
    """Whether a file is an image by its name; hidden files (such as macOS's ._x.jpg) are not."""
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
    """Paths of the images in a folder and in those below it, relative to it, with forward
    slashes."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise LayoutError(
            f"{folder} cannot be read ({error.strerror})", "make it readable for this user"
        ) from error
    below = set()
    if depth < MAX_DEPTH:
        below = set(subfolders(folder))

    for name in names:
        if name in below:
            if _leads_up(folder / name):
                continue
            for path in images_below(folder / name, depth + 1):
                yield f"{name}/{path}"
        elif is_image(name):
            yield name


def _leads_up(path: Path) -> bool:
    """Whether a folder is a link to one that it lies in, whose images would be found again."""
    if not path.is_symlink():
        return False

    target = os.path.realpath(path)
    return os.path.commonpath([os.path.realpath(path.parent), target]) == target


def present(root: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries whose file is there, with its name on the disk, and the paths of the others.

    Lists every folder once instead of asking for every file. A name that differs in case, in its
    Unicode form or in its suffix (a copy that was converted), or that has backslashes, is taken for
    the file.
    """
    folders: dict[str, _Folder] = {}
    found: list[Entry] = []
    absent: list[str] = []

    for entry in entries:
        folder, _, name = entry.path.replace("\\", "/").rpartition("/")
        if folder not in folders:
            folders[folder] = _Folder(root, folder)
        path = folders[folder].find(name)
        if path is None:
            absent.append(entry.path)
        else:
            found.append(entry._replace(path=path))

    return found, absent


class _Folder:
    """The names in a folder that a list mentions."""

    def __init__(self, root: Path, listed: str) -> None:
        self._path = on_disk(root, listed)
        self._names: set[str] = set()
        self._alike: dict[str, str] | None = None
        if self._path is not None:
            self._names = _names_in(root / self._path)

    def find(self, name: str) -> str | None:
        """The path of the file that a listed name means, relative to the root."""
        if self._path is None:
            return None

        actual: str | None = name
        if name not in self._names:
            if self._alike is None:
                self._alike = _alike(self._names)
            stem = os.path.splitext(name)[0]
            actual = self._alike.get(folded(name)) or self._alike.get(folded(stem))
        return actual and f"{self._path}/{actual}".lstrip("/")


def on_disk(root: Path, listed: str) -> str | None:
    """The path on the disk that a listed one means: it may differ in case or in Unicode form."""
    if (root / listed).exists():
        return listed

    path = ""
    for name in listed.split("/"):
        names = sorted(_names_in(root / path))
        alike = [one for one in names if folded(one) == folded(name)]
        if not alike:
            return None
        path = f"{path}/{alike[0]}".lstrip("/")
    return path


def read_list(path: Path) -> list[str]:
    """The lines of a list that comes with a data set. Raises LayoutError if it has none."""
    lines = read_lines(path)
    if not lines:
        raise LayoutError(f"{path} is empty", UNPACK_AGAIN)
    return lines


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The lines of a list, each split once: what follows the first blank may hold blanks itself.

    Raises LayoutError if it is empty, or with the line that has no second column.
    """
    pairs = []
    for number, line in enumerate(read_list(path), start=1):
        first, *rest = re.split(r"[ \t]+", line, maxsplit=1)
        if not rest:
            raise LayoutError(
                f"{path}, entry {number} is '{printable(line)}', but must have two columns",
                UNPACK_AGAIN,
            )
        pairs.append((first, rest[0]))
    return pairs


def read_column(path: Path) -> dict[str, str]:
    """What a list says of each id in its first column. Raises LayoutError if it says two things
    of one."""
    said: dict[str, str] = {}
    twice = []
    for id_, value in read_pairs(path):
        if said.setdefault(id_, value) != value:
            twice.append(f"{id_} is '{said[id_]}' and '{value}'")

    if twice:
        raise LayoutError(f"{path} contradicts itself: {some(twice, '; ')}", UNPACK_AGAIN)
    return said


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _alike(names: Iterable[str]) -> dict[str, str]:
    """The images' names by what they have in common with other spellings, with and without
    suffix."""
    images = sorted((name for name in names if is_image(name)), reverse=True)
    stems = {folded(os.path.splitext(name)[0]): name for name in images}
    return stems | {folded(name): name for name in images}
