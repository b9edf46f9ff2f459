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
        source = f"--set {_shown(override)}"
        mark = Mark(order, 1, 1, source)
        key, equals, text = override.partition("=")
        path: KeyPath = tuple(part.strip() for part in key.split("."))

        if not equals or not all(path):
            example = "an override is KEY=VALUE, such as train.lr=1e-3"
            problems.append((mark, Problem(source, "", example)))
            continue

        searched = {str(one.plain()) for one in items_at(root, "space", METHOD, "choices")}
        path = _qualified(path, {*methods, *searched})
        try:
            value = _value(path, text, mark, problems)
        except SpecError as error:
            what = error.problems[0].what
            problems.append((mark, Problem(source, dotted(path), what)))
            continue

        fault = _put(root, path, value, mark)
        if fault:
            problems.append((mark, Problem(source, dotted(path), fault)))


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
        what = f"nothing follows '=' (a variable that is not set?){unset}"
        raise SpecError([Problem(mark.source, dotted(path), what)])

    if takes_text(path) and not _QUOTED.fullmatch(text):
        null = allows_null(path) and NULL.fullmatch(stripped) is not None
        return Scalar(mark, None if null else stripped, quoted=not null)

    comment = _COMMENT.search(_QUOTED.sub(lambda quoted: "x" * len(quoted[0]), text))
    if comment is not None:
        dropped = shortened(text[comment.start() :].strip())
        what = (
            f"YAML reads '{dropped}' as a comment and drops it: leave it out, or put it in quotes"
        )
        raise SpecError([Problem(mark.source, dotted(path), what)])

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


def _put(root: Mapping, path: KeyPath, value: Node, mark: Mark) -> str:
    """Set the node, making the mappings on the way. Returns why it cannot be set, or nothing."""
    node: Node = root
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, Sequence):
            if not (str(part).isdecimal() and len(str(part)) < 6 and int(part) < len(node.items)):
                above, count = dotted(path[:depth]), len(node.items)
                return (
                    f"{above} is a list of {count}, counted from 0: there is no '{dotted([part])}'"
                )

            if last:
                node.items[int(part)] = value
                return ""

            node = node.items[int(part)]
            continue

        if not isinstance(node, Mapping):
            return f"{dotted(path[:depth])} is a single value: nothing can be set in it"

        key = str(part)
        if last:
            node.set(key, value, mark)
            return ""

        child = node_at(node, key)
        if child is None or (isinstance(child, Scalar) and child.value is None):
            child = Mapping(mark)
            node.set(key, child, mark)

        node = child

    return ""
