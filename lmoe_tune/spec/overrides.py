"""`--set a.b=v`: settings from the command line, put into the document before it is checked."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from lmoe_tune.errors import Problem, SpecError
from lmoe_tune.spec.document import Entry, KeyPath, Mapping, Mark, Node, Scalar, Sequence, parse
from lmoe_tune.spec.wording import dotted, shortened


def apply_overrides(
    root: Mapping, overrides: SequenceOf[str], problems: list[tuple[Mark, Problem]]
) -> None:
    """Set each `a.b=v` in the tree, in place and in order; a number as a key counts within a list, from 0.

    The value is YAML. What cannot be set is appended to `problems`.
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
        try:
            value = parse(text, source, problems, order=order)
        except SpecError as error:
            what = error.problems[0].what
            problems.append((mark, Problem(source, dotted(path), what)))
            continue
        fault = _put(root, path, Scalar(mark, None) if value is None else value, mark)
        if fault:
            problems.append((mark, Problem(source, dotted(path), fault)))


def _shown(override: str) -> str:
    """The override as typed, without a password; a URI may hide one anywhere."""
    if override.strip().startswith("tracking.uri"):
        return "tracking.uri=…"
    return shortened(override)


def _put(root: Mapping, path: KeyPath, value: Node, mark: Mark) -> str:
    """Set the node, making the mappings on the way. Returns what stands against it, or nothing."""
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
            node.entries[key] = Entry(mark, value)
            return ""
        child = node.get(key)
        if child is None or (isinstance(child, Scalar) and child.value is None):
            child = Mapping(mark)
            node.entries[key] = Entry(mark, child)
        node = child
    return ""
