"""Names of files and classes: how they are compared, shown, and kept in lists that can be read
back.

A name on a disk is bytes. Python reads those that are not UTF-8 as lone surrogates; they are kept,
so that the file can be opened, and escaped wherever a person or another program reads the name.
"""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmoe_tune.durable import write_durably
from lmoe_tune.readers.layout import LayoutError
from lmoe_tune.wording import first_few, printable

SHOWN = 5  # names in a message


def class_name(name: str) -> str:
    """The name of a class as text: in NFC, without blanks around it; unprintable characters are
    escaped."""
    return printable(unicodedata.normalize("NFC", name).strip())


def path_key(path: str) -> str:
    """What two spellings of one path have in common: NFC, forward slashes, no leading ./."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    return path.replace("\\", "/").removeprefix("./")


def folded(name: str) -> str:
    """What names have in common if people take them for the same: neither case nor blanks count."""
    text = name.casefold()
    if not name.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(text.split())


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    return first_few(map(printable, names), SHOWN, separator)


def read_lines(path: Path) -> list[str]:
    """The lines of a list in NFC, stripped, without empty ones.

    UTF-8 with or without a byte order mark, or UTF-16 with one; bytes that are neither are kept as
    surrogates.

    Raises:
        LayoutError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LayoutError(
            f"{path} cannot be read ({error.strerror})", "make it readable for this user"
        ) from error

    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        text = content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    return [unicodedata.normalize("NFC", line) for line in lines if line]


def read_names(path: Path) -> list[str]:
    """A list of names, one a line; one in double quotes is a JSON string. Raises LayoutError as
    `read_lines`."""
    return [_unquoted(line) for line in read_lines(path)]


def write_names(path: Path, names: Iterable[str]) -> None:
    """Write a list that `read_names` reads back, whatever characters and bytes the names hold."""
    lines = [_quoted(name) for name in names]
    write_durably(path, "".join(f"{line}\n" for line in lines).encode())


def _quoted(name: str) -> str:
    plain = name.isprintable() and name.strip() == name and not name.startswith('"')
    if plain:
        return name
    return json.dumps(name)


def _unquoted(line: str) -> str:
    if len(line) < 2 or not (line[0] == line[-1] == '"'):
        return line
    try:
        return str(json.loads(line))
    except ValueError:
        return line
