"""`--set a.b=v`: settings from the command line, put into the document before it is checked."""

from __future__ import annotations

import re
from collections.abc import Collection
from collections.abc import Sequence as SequenceOf

from lmoe_tune.errors import Problem, SpecError
from lmoe_tune.spec.declaration import METHOD
from lmoe_tune.spec.document import (
    NULL,
    KeyPath,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    items_at,
    node_at,
    parse,
)
from lmoe_tune.spec.fields import allows_null, takes_text
from lmoe_tune.wording import dotted, shortened

_QUOTED = re.compile(r"""\s*("(\\.|[^"\\])*"|'(''|[^'])*')\s*""", re.DOTALL)
_COMMENT = re.compile(r"(^|\s)#")


def apply_overrides(
    root: Mapping,
    overrides: SequenceOf[str],
    problems: list[tuple[Mark, Problem]],
    *,
    methods: Collection[str] = (),
) -> None:
    """Set each `a.b=v` in the tree, in place and in order; a number as a key counts within a list,
    from 0.

    The value of a setting that holds text is that text; any other is YAML. What cannot be set is
    appended to `problems`.

    Args:
        methods: names that may precede a parameter's, as in `space.mixoe.lr`.
    """
    for order, override in enumerate(overrides, start=1):
        mark = Mark(order, 1, 1, f"--set {_shown(override)}")
        path: KeyPath = ()
        try:
            path = _path(root, override, methods)
            text = override.partition("=")[2]
            _put(root, path, _value(path, text, mark, problems), mark)
        except SpecError as error:
            problems.append((mark, Problem(mark.source, dotted(path), error.problems[0].what)))


def _path(root: Mapping, override: str, methods: Collection[str]) -> KeyPath:
    """What an override sets. Raises SpecError if that cannot be seen."""
    key, equals, _ = override.partition("=")
    path: KeyPath = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise _refusal("an override is KEY=VALUE, such as train.lr=1e-3")

    searched = {str(one.plain()) for one in items_at(root, "space", METHOD, "choices")}
    return _qualified(path, {*methods, *searched})


def _refusal(what: str) -> SpecError:
    """Why an override cannot be applied; the caller says where it is."""
    return SpecError([Problem("", "", what)])


def apply_name(root: Mapping, name: str, order: int) -> None:
    """Set the sweep's name to this text, whatever YAML would make of it."""
    mark = Mark(order, 1, 1, "--name")
    root.set("name", Scalar(mark, name, quoted=True), mark)


def _value(path: KeyPath, text: str, mark: Mark, problems: list[tuple[Mark, Problem]]) -> Node:
    """The node for what was typed. Raises SpecError if it is nothing, or not YAML where it must
    be.
    """
    stripped = text.strip()
    if not stripped:
        unset = "; null means its default" if allows_null(path) else ""
        raise _refusal(f"nothing follows '=' (a variable that is not set?){unset}")

    if takes_text(path) and not _QUOTED.fullmatch(text):
        null = allows_null(path) and NULL.fullmatch(stripped) is not None
        return Scalar(mark, None if null else stripped, quoted=not null)

    comment = _COMMENT.search(_QUOTED.sub(lambda quoted: "x" * len(quoted[0]), text))
    if comment is not None:
        dropped = shortened(text[comment.start() :].strip())
        raise _refusal(
            f"YAML reads '{dropped}' as a comment and drops it: leave it out, or put it in quotes"
        )

    return parse(text, mark.source, problems, order=mark.order) or Scalar(mark, None)


def _qualified(path: KeyPath, methods: Collection[str]) -> KeyPath:
    """The path with `METHOD.NAME`, the name of a parameter of one method, as one key."""
    start = 3 if path[:2] == ("search", "start_from") else 1
    if path[0] not in ("space", "fixed", "search") or len(path) < start + 2:
        return path

    for end in range(len(path) - 1, start, -1):
        if ".".join(map(str, path[start:end])) in methods:
            return (*path[:start], ".".join(map(str, path[start : end + 1])), *path[end + 1 :])

    return path


def _shown(override: str) -> str:
    """The override as typed, without a password; a URI may hide one anywhere."""
    if override.strip().startswith("tracking.uri"):
        return "tracking.uri=…"
    return shortened(override)


def _put(root: Mapping, path: KeyPath, value: Node, mark: Mark) -> None:
    """Set the node, making the mappings on the way. Raises SpecError if it cannot be set."""
    node: Node = root
    for depth, part in enumerate(path, start=1):
        last = depth == len(path)
        if isinstance(node, Sequence):
            if not (str(part).isdecimal() and len(str(part)) < 6 and int(part) < len(node.items)):
                above, count = dotted(path[: depth - 1]), len(node.items)
                raise _refusal(
                    f"{above} is a list of {count}, counted from 0: there is no '{dotted([part])}'"
                )

            if last:
                node.items[int(part)] = value
            node = node.items[int(part)]
            continue

        if not isinstance(node, Mapping):
            raise _refusal(
                f"{dotted(path[: depth - 1])} is a single value: nothing can be set in it"
            )

        key = str(part)
        child = node_at(node, key)
        if last:
            node.set(key, value, mark)
        elif child is None or (isinstance(child, Scalar) and child.value is None):
            node.set(key, Mapping(mark), mark)

        node = node.entries[key].value
