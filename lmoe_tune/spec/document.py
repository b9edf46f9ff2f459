"""A YAML document with the place of every key and value.

PyYAML composes; this module adds what it lacks: bounds on depth, size and aliases before they cost
anything, and the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103): `1e-4` is a number,
`yes` and `12:30` are text, a date is text. Nothing is constructed but text, numbers, booleans and
null.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent

from lmoe_tune.errors import Problem, SpecError
from lmoe_tune.wording import dotted, printable, shortened

try:  # libyaml, ten times faster; PyYAML's wheels have it, its source builds may not
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 20_000
"""Nodes of the tree with aliases written out: an alias bomb of a few lines would have billions."""
MAX_DIGITS = 100  # of a number; int() of thousands is slow and then an error

Plain = bool | int | float | str | dict[str, "Plain"] | tuple["Plain", ...] | None
KeyPath = tuple[str | int, ...]

NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_LOOK_ALIKES = re.compile(
    "[\xa0\u2007\u200b\u202f\u3000]|^[\u2018\u2019\u201c\u201d]|\uff1a|^\u2212[0-9.]"
)
"""What a word processor or a web page makes of spaces, quotes, colons and minus signs."""
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True, order=True)
class Mark:
    """A place: the file (order 0) or one of the overrides (1, 2, …), line and column from 1."""

    order: int
    line: int
    column: int
    source: str

    @property
    def where(self) -> str:
        if self.order == 0:
            return f"{self.source}:{self.line}:{self.column}"

        return self.source


@dataclass(frozen=True)
class Scalar:
    mark: Mark
    value: bool | int | float | str | None
    quoted: bool = False

    def plain(self) -> Plain:
        return self.value


@dataclass(frozen=True)
class Sequence:
    mark: Mark
    items: list[Node] = field(default_factory=list)

    def plain(self) -> Plain:
        return tuple(item.plain() for item in self.items)


@dataclass(frozen=True)
class Entry:
    key_mark: Mark
    value: Node


@dataclass(frozen=True)
class Mapping:
    mark: Mark
    entries: dict[str, Entry] = field(default_factory=dict)

    def plain(self) -> dict[str, Plain]:
        return {key: entry.value.plain() for key, entry in self.entries.items()}

    def set(self, key: str, value: Node, mark: Mark | None = None) -> None:
        """Give a key a value that is implied, or that comes from the place of the mark."""
        self.entries[key] = Entry(mark or self.mark, value)


Node = Scalar | Sequence | Mapping


def node_at(node: Node | None, *path: str | int) -> Node | None:
    """The node at a path below a node, or None."""
    for part in path:
        if isinstance(node, Mapping) and part in node.entries:
            node = node.entries[str(part)].value
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return None

    return node


def items_at(node: Node | None, *path: str | int) -> list[Node]:
    """The items of the list at a path below a node; none where there is no list."""
    found = node_at(node, *path)
    return found.items if isinstance(found, Sequence) else []


def entries_at(node: Node | None, *path: str | int) -> dict[str, Entry]:
    """The entries of the mapping at a path below a node; none where there is no mapping."""
    found = node_at(node, *path)
    return found.entries if isinstance(found, Mapping) else {}


def core_value(text: str) -> bool | int | float | str | None:
    """The value of a plain (unquoted) scalar in YAML 1.2's core schema.

    Raises ValueError for a number of too many digits.
    """
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"

    if INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"the number has more than {MAX_DIGITS} digits")
        if text[:2] in ("0o", "0x"):
            return int(text, 0)

        return int(text)

    if FLOAT.fullmatch(text):
        lower = text.lower()
        return float(lower.replace(".inf", "inf").replace(".nan", "nan") if "n" in lower else lower)

    return text


def file_name(path: Path) -> str:
    """How messages name a file: as given, or relative to the working directory where that is
    shorter.
    """
    given = str(path)
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone; another drive
        relative = given

    return printable(min(given, relative, key=len))


def read_text(path: Path) -> str:
    """The file's text. Raises SpecError if it cannot be read, is too large or is not UTF-8."""
    name = file_name(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise SpecError([Problem(name, "", "is a folder, but must be a YAML file")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError([Problem(name, "", f"cannot be read: {reason}")]) from None

    if len(data) > MAX_BYTES:
        raise SpecError(
            [
                Problem(
                    f"{name}:1:1",
                    "",
                    f"is larger than {MAX_BYTES // 1000} kB, so it cannot be a spec",
                )
            ]
        )

    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SpecError([Problem(f"{name}:1:1", "", "is UTF-16 text; save it as UTF-8")])

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        line, column = _place(before)
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise SpecError([Problem(f"{name}:{line}:{column}", "", text)]) from None


def parse(
    text: str, source: str, problems: list[tuple[Mark, Problem]], *, order: int = 0
) -> Node | None:
    """The document's tree; None if it is empty. `source` names it in messages.

    Duplicate keys are appended to `problems` (the first one counts) and reading continues. Raises
    SpecError with one problem if there is no tree to continue with: no YAML, several documents, a
    tag, a recursive alias, too deep or too large.
    """
    composer = _Composer(text, source, order, problems)
    root = composer.composed()
    if root is None:
        return None

    node = composer.converted(root, ())
    empty = isinstance(node, Scalar) and node.value is None and not node.quoted

    if empty:
        return None

    return node


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows this text."""
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1


class _Composer:
    """Turns one text into a tree: what PyYAML composes, bounded, with our marks and our scalars."""

    def __init__(
        self, text: str, source: str, order: int, problems: list[tuple[Mark, Problem]]
    ) -> None:
        self.text, self.source, self.order, self.problems = text, source, order, problems
        self.num_nodes = 0
        self.above: list[yaml.Node] = []  # the nodes around the one that is converted

    def fail(self, mark: Mark, what: str, path: KeyPath = ()) -> NoReturn:
        raise SpecError([Problem(mark.where, dotted(path), what)])

    def at(self, yaml_mark: Any) -> Mark:
        if yaml_mark is None:
            return Mark(self.order, 1, 1, self.source)
        return Mark(self.order, yaml_mark.line + 1, yaml_mark.column + 1, self.source)

    def composed(self) -> yaml.Node | None:
        """PyYAML's tree, in which only explicit tags are kept as tags."""
        bad = _UNPRINTABLE.search(self.text)
        if bad is not None:
            where = Mark(self.order, *_place(self.text[: bad.start()]), self.source)
            self.fail(where, f"the character {_named(bad[0])} is not allowed in YAML")

        class Untagged(_Loader):
            def resolve(self, kind: object, value: object, implicit: object) -> str:
                return ""

        try:
            self.bound()
            return yaml.compose(self.text, Loader=Untagged)
        except yaml.MarkedYAMLError as error:
            where = self.at(error.problem_mark or error.context_mark)
            self.fail(where, f"this is not valid YAML: {self.explained(error, where)}")
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # ValueError: what PyYAML's own scanner raises for an escape such as "\U99999999"
            self.fail(self.at(None), f"this is not valid YAML: {shortened(str(error))}")

    def bound(self) -> None:
        """Refuse what would be deep or large before PyYAML builds it, which it does by recursion."""
        depth = num_nodes = num_documents = 0
        for event in yaml.parse(self.text, Loader=_Loader):
            num_nodes += isinstance(event, NodeEvent)
            num_documents += isinstance(event, DocumentStartEvent)
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            mark = self.at(event.start_mark)
            if num_documents > 1:
                self.fail(mark, "a second document starts here, but a spec is one document")
            if depth > MAX_DEPTH:
                self.fail(mark, f"the document is nested deeper than {MAX_DEPTH} levels")
            if num_nodes > MAX_NODES:
                self.fail(
                    mark, f"the document has more than {MAX_NODES} values, so it cannot be a spec"
                )

    def explained(self, error: yaml.MarkedYAMLError, where: Mark) -> str:
        lines = self.text.splitlines()
        line = "".join(lines[where.line - 1 : where.line])
        if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in (error.problem or ""):
            return "a tab indents this line; use spaces"

        above = "".join(lines[max(where.line - 2, 0) : where.line])
        if (found := _LOOK_ALIKES.search(above)) is not None:
            return f"{_named(found[0][0])} is here or in the line above; type it as plain text"

        words = [word for word in (error.context, error.problem) if word]

        return printable(", ".join(words)) or "it cannot be read"

    def converted(self, node: yaml.Node, path: KeyPath) -> Node:
        """The tree below a node, its aliases written out."""
        mark = self.at(node.start_mark)
        self.num_nodes += 1

        if self.num_nodes > MAX_NODES:
            self.fail(
                mark,
                f"with its aliases written out the document has more than {MAX_NODES} values",
                path,
            )

        if len(path) >= MAX_DEPTH:
            self.fail(mark, f"the document is nested deeper than {MAX_DEPTH} levels")
        if any(node is other for other in self.above):
            self.fail(mark, "an alias is used inside what it refers to", path)

        if node.tag not in ("", "!"):
            tag = shortened(node.tag.replace("tag:yaml.org,2002:", "!!"))
            self.fail(mark, f"the tag {tag} is not allowed: a spec holds plain values only", path)

        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, mark, path)

        self.above.append(node)
        result: Node

        if isinstance(node, yaml.SequenceNode):
            result = Sequence(mark)
            for place, item in enumerate(node.value):
                result.items.append(self.converted(item, (*path, place)))
        else:
            result = Mapping(mark)
            for key, value in node.value:
                self.enter(result, key, value, path)

        self.above.pop()

        return result

    def enter(self, mapping: Mapping, key: yaml.Node, value: yaml.Node, path: KeyPath) -> None:
        mark = self.at(key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            self.fail(mark, "a key must be a plain word", path)
        if key.tag not in ("", "!"):
            self.fail(mark, f"the tag {shortened(key.tag)} is not allowed", path)

        if key.value == "<<" and not key.style:
            self.fail(
                mark, "merge keys (<<) are not read: write out the keys that they refer to", path
            )

        name = self.scalar(key, mark, path, as_text=True).value
        assert isinstance(name, str)
        self.num_nodes += 1
        child = (*path, name)
        entry = Entry(mark, self.converted(value, child))
        first = mapping.entries.setdefault(name, entry)
        if first is not entry:
            what = f"the key is set twice: first in line {first.key_mark.line}"
            self.problems.append((mark, Problem(mark.where, dotted(child), what)))

    def scalar(
        self, node: yaml.ScalarNode, mark: Mark, path: KeyPath, *, as_text: bool = False
    ) -> Scalar:
        text, quoted = str(node.value), bool(node.style)
        if quoted and re.search("[\ud800-\udfff]", text):
            self.fail(mark, "a lone surrogate is not a character", path)
        if not quoted and (found := _LOOK_ALIKES.search(text)) is not None:
            self.fail(mark, f"{_named(found[0][0])} is here; type it as plain text", path)
        if quoted or as_text:
            return Scalar(mark, text, quoted=quoted)

        try:
            return Scalar(mark, core_value(text))
        except ValueError as error:
            self.fail(mark, str(error), path)


def _named(char: str) -> str:
    """A character as a person can look for it: a no-break space (U+00A0)."""
    name = unicodedata.name(char, "").lower()
    code = f"U+{ord(char):04X}"
    if name:
        return f"a {name} ({code})"

    return code
