"""A YAML document with the place of every key and value.

PyYAML's safe loader parses; the tree is built here from its events, so that nothing is constructed but text,
numbers, booleans and null, that depth, size and aliases are bounded before they cost anything, and that every
node knows its line and column. Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103):
`1e-4` is a number, `yes` and `12:30` are text, a date is text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamStartEvent,
)

from lmoe_tune.errors import Problem, SpecError
from lmoe_tune.spec.wording import dotted, printable, shortened

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
        return f"{self.source}:{self.line}:{self.column}" if self.order == 0 else self.source


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

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry.value if entry is not None else None


Node = Scalar | Sequence | Mapping


def copied(node: Node) -> Node:
    """The node with containers of its own; the marks stay."""
    if isinstance(node, Mapping):
        return Mapping(
            node.mark, {key: Entry(e.key_mark, copied(e.value)) for key, e in node.entries.items()}
        )
    if isinstance(node, Sequence):
        return Sequence(node.mark, [copied(item) for item in node.items])
    return node


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
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if FLOAT.fullmatch(text):
        lower = text.lower()
        return float(lower.replace(".inf", "inf").replace(".nan", "nan") if "n" in lower else lower)
    return text


def file_name(path: Path) -> str:
    """How messages name a file: as given, or relative to the working directory where that is shorter."""
    given = str(path)
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone; another drive
        relative = given
    return printable(min(given, relative, key=len))


def read_text(path: Path) -> str:
    """The file's text. Raises SpecError where it cannot be read, is too large or is not UTF-8."""
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
            [Problem(f"{name}:1:1", "", f"is larger than {MAX_BYTES // 1000} kB: this is no spec")]
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
    """The document's tree; None where it is empty. `source` names it in messages.

    Duplicate keys are appended to `problems` (the first one counts) and reading goes on. Raises SpecError
    with one problem where there is no tree to go on with: no YAML, several documents, a tag, a recursive
    alias, too deep or too large.
    """
    return _Composer(text, source, order, problems).document()


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows this text."""
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1


def _tag(event: ScalarEvent | SequenceStartEvent | MappingStartEvent) -> str:
    return shortened(str(event.tag).replace("tag:yaml.org,2002:", "!!"))


class _Composer:
    """Builds the tree from the parser's events, one document of one stream."""

    def __init__(
        self, text: str, source: str, order: int, problems: list[tuple[Mark, Problem]]
    ) -> None:
        self.text, self.source, self.order, self.problems = (text, source, order, problems)
        bad = _UNPRINTABLE.search(text)
        if bad is not None:
            where = Mark(order, *_place(text[: bad.start()]), source)
            self.fail(where, f"the character U+{ord(bad[0]):04X} is not allowed in YAML")
        self.events: Iterator[Event] = yaml.parse(text, Loader=_Loader)
        self.anchors: dict[
            str, tuple[Node, int, int]
        ] = {}  # with size and depth of what it stands for
        self.open_anchors: set[str] = set()
        self.num_nodes = 0

    def fail(self, mark: Mark, what: str, key: str = "") -> NoReturn:
        raise SpecError([Problem(mark.where, key, what)])

    def mark(self, event: Event) -> Mark:
        return self.at(event.start_mark)

    def at(self, yaml_mark: Any) -> Mark:
        if yaml_mark is None:
            return Mark(self.order, 1, 1, self.source)
        return Mark(self.order, yaml_mark.line + 1, yaml_mark.column + 1, self.source)

    def next(self) -> Event:
        try:
            return next(self.events)
        except yaml.MarkedYAMLError as error:
            where = self.at(error.problem_mark or error.context_mark)
            self.fail(where, f"this is not valid YAML: {self.explained(error, where)}")
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # ValueError: what PyYAML's own scanner raises for an escape such as "\U99999999"
            self.fail(self.at(None), f"this is not valid YAML: {shortened(str(error))}")

    def explained(self, error: yaml.MarkedYAMLError, where: Mark) -> str:
        lines = self.text.splitlines()
        line = lines[where.line - 1] if 0 < where.line <= len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in (error.problem or ""):
            return "a tab indents this line; use spaces"
        words = [word for word in (error.context, error.problem) if word]
        return printable(", ".join(words)) or "it cannot be read"

    def document(self) -> Node | None:
        root: Node | None = None
        num_documents = 0
        event = self.next()
        assert isinstance(event, StreamStartEvent)
        while isinstance(event := self.next(), DocumentStartEvent):
            num_documents += 1
            if num_documents > 1:
                self.fail(
                    self.mark(event), "a second document starts here, but a spec is one document"
                )
            root, _, _ = self.node(self.next(), ())
            self.next()  # the document's end
        if isinstance(root, Scalar) and root.value is None and not root.quoted:
            return None
        return root

    def node(self, event: Event, path: KeyPath) -> tuple[Node, int, int]:
        """The node that starts with this event, its size in nodes and its depth."""
        mark, key = self.mark(event), dotted(path)
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            self.fail(mark, f"the document has more than {MAX_NODES} values: this is no spec", key)
        if len(path) >= MAX_DEPTH:
            self.fail(mark, f"the document is nested deeper than {MAX_DEPTH} levels")
        assert isinstance(event, NodeEvent)
        if isinstance(event, AliasEvent):
            return self.alias(event, path)
        assert isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent)
        if event.tag is not None and event.tag != "!":
            self.fail(
                mark, f"the tag {_tag(event)} is not allowed: a spec holds plain values only", key
            )
        anchor = event.anchor
        if anchor is not None:
            self.open_anchors.add(anchor)
        node: Node
        size, depth = 1, 1
        if isinstance(event, ScalarEvent):
            node = self.scalar(event, key)
        elif isinstance(event, SequenceStartEvent):
            node = Sequence(mark)
            while not isinstance(event := self.next(), SequenceEndEvent):
                item, item_size, item_depth = self.node(event, (*path, len(node.items)))
                node.items.append(item)
                size, depth = size + item_size, max(depth, item_depth + 1)
        else:
            node = Mapping(mark)
            while not isinstance(event := self.next(), MappingEndEvent):
                name = self.key(event, path)
                value, value_size, value_depth = self.node(self.next(), (*path, name))
                self.enter(node, name, Entry(self.mark(event), value), path)
                size, depth = size + value_size + 1, max(depth, value_depth + 1)
        if anchor is not None:
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = node, size, depth
        return node, size, depth

    def scalar(self, event: ScalarEvent, key: str) -> Scalar:
        if not event.implicit[0]:  # quoted, or a block scalar
            value: bool | int | float | str | None = event.value
            if re.search("[\ud800-\udfff]", event.value):
                self.fail(self.mark(event), "a lone surrogate is not a character", key)
        else:
            try:
                value = core_value(event.value)
            except ValueError as error:
                self.fail(self.mark(event), str(error), key)
        return Scalar(self.mark(event), value, quoted=not event.implicit[0])

    def key(self, event: Event, path: KeyPath) -> str:
        if not isinstance(event, ScalarEvent):
            self.fail(self.mark(event), "a key must be a plain word", dotted(path))
        if event.tag is not None and event.tag != "!":
            self.fail(self.mark(event), f"the tag {_tag(event)} is not allowed", dotted(path))
        self.num_nodes += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = self.scalar(event, dotted(path)), 1, 1
        return event.value

    def enter(self, node: Mapping, name: str, entry: Entry, path: KeyPath) -> None:
        first = node.entries.get(name)
        if first is None:
            node.entries[name] = entry
            return
        what = f"the key is set twice: first in line {first.key_mark.line}"
        problem = Problem(entry.key_mark.where, dotted((*path, name)), what)
        self.problems.append((entry.key_mark, problem))

    def alias(self, event: AliasEvent, path: KeyPath) -> tuple[Node, int, int]:
        mark, key, anchor = self.mark(event), dotted(path), str(event.anchor)
        if anchor in self.open_anchors:
            self.fail(mark, f"the alias *{shortened(anchor)} stands inside what it stands for", key)
        if anchor not in self.anchors:
            self.fail(mark, f"there is no anchor &{shortened(anchor)} before this alias", key)
        node, size, depth = self.anchors[anchor]
        self.num_nodes += size
        if self.num_nodes > MAX_NODES:
            self.fail(
                mark,
                f"with its aliases written out the document has more than {MAX_NODES} values",
                key,
            )
        if len(path) + depth > MAX_DEPTH:
            self.fail(mark, f"the document is nested deeper than {MAX_DEPTH} levels", key)
        # A copy, as overrides and defaults change the tree in place, and at this alias only.
        return replace(copied(node), mark=mark), size, depth
