"""The problems of one document: where they are, and which parts are still fit to be checked
further.

One cause is reported once: a check that rests on a part with a problem asks `clean` or `plain`
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ValidationError

from lmoe_tune.errors import Problem
from lmoe_tune.spec.document import (
    KeyPath,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    core_value,
    entries_at,
    items_at,
    node_at,
)
from lmoe_tune.spec.fields import keys_at, meant_key, must_be, options_at, takes
from lmoe_tune.spec.model import Spec
from lmoe_tune.wording import did_you_mean, dotted, shortened, shown, suggestion

MAX_GUESSES = 200  # guessing a word takes time, and nobody reads more


class Findings:
    """A document and what is wrong with it."""

    def __init__(self, root: Mapping, problems: list[tuple[Mark, Problem]]) -> None:
        self.root = root
        self._problems = problems
        self._bad: set[KeyPath] = set()
        self._num_guesses = 0
        self._meant: set[KeyPath] = set()  # what unknown keys were probably meant to be
        self._touched: set[KeyPath] = set()  # the bad paths and all above them

    @property
    def problems(self) -> list[Problem]:
        """In the order of the document, those of overrides last."""
        return [problem for _, problem in sorted(self._problems, key=lambda found: found[0])]

    def add(self, path: KeyPath, what: str, *, at: Literal["key", "value"] = "value") -> None:
        """Report a problem with the setting at a path; an absent one is reported where it would
        be.
        """
        if path in self._bad:
            return

        mark = self._mark(path, at)
        self._problems.append((mark, Problem(mark.where, dotted(path), what)))
        self._bad.add(path)
        self._touched.update(path[:length] for length in range(len(path) + 1))

    def refuse(self, path: KeyPath, expected: str, *, hint: str = "") -> None:
        """Report the value at a path: "value is X, but must be Y"."""
        self.add(path, f"value is {shown(self.raw(path))}, but must be {expected}{hint}")

    def add_missing(self, path: KeyPath, what: str = "") -> None:
        """Report an absent setting, unless a misspelt key beside it has been reported as this one."""
        if not any(path[:length] in self._meant for length in range(1, len(path) + 1)):
            self.add(path, f"is missing: {what}" if what else "is missing")

    def clean(self, path: KeyPath) -> bool:
        """Whether there is no problem with this setting, with anything in it, or with what it is
        in.
        """
        return path not in self._touched and not any(
            path[:length] in self._bad for length in range(len(path))
        )

    def node(self, path: KeyPath) -> Node | None:
        """The node at a path, or None."""
        return node_at(self.root, *path)

    def raw(self, path: KeyPath) -> Any:
        """The value at a path, whatever is wrong with it; None where there is none."""
        node = self.node(path)
        return node and node.plain()

    def plain(self, path: KeyPath, default: Any = None) -> Any:
        """The value at a path; the default where there is none, or one with a problem."""
        value = self.raw(path)
        if value is None or not self.clean(path):
            return default

        return value

    def keys(self, path: KeyPath) -> tuple[str, ...]:
        """The keys of the mapping at a path, in order; none where there is no mapping."""
        return tuple(entries_at(self.root, *path))

    def items(self, path: KeyPath) -> dict[KeyPath, Any]:
        """The items of the list at a path, by their own paths; none where there is no list."""
        nodes = items_at(self.root, *path)
        return {(*path, place): node.plain() for place, node in enumerate(nodes)}

    def check_shape(self, within: KeyPath = ()) -> None:
        """Report unknown and missing keys and values of a wrong type or beyond a field's own
        bounds.

        Args:
            within: only what is in this part of the document.
        """
        try:
            Spec.model_validate(self.root.plain())
        except ValidationError as errors:
            found = errors.errors(include_url=False, include_context=False)
            # Unknown keys first: one that is a slip of a missing key is the cause of its absence.
            for error in sorted(found, key=lambda error: error["type"] != "extra_forbidden"):
                if error["loc"][: len(within)] != within:
                    continue

                self._add_shape(error["type"], error["loc"])

    def _add_shape(self, kind: str, loc: KeyPath) -> None:
        path = self._standing(loc)
        if kind == "missing":
            expected = must_be((*path, loc[-1]))
            if expected in ("a mapping", "text"):
                words = ""
            else:
                words = f"it must be {expected}"
            self.add_missing((*path, loc[-1]), words)
        elif kind == "extra_forbidden":
            parent, hint = path[:-1], ""
            if self._may_guess():
                guess = meant_key(parent, str(path[-1]))
                if guess is not None:
                    self._meant.add((*parent, guess))

                if guess:
                    hint = f"; did you mean '{guess}'?"
                else:
                    hint = f"; the keys here are {', '.join(keys_at(parent))}"

            self.add(path, f"unknown key{hint}", at="key")
        else:
            self.refuse(path, must_be(path, self.raw(path)), hint=self._slip(path))

    def guess(self, word: str, known: Iterable[str]) -> str | None:
        """The known word that was probably meant."""
        if self._may_guess():
            return suggestion(word, known)

        return None

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """ "; did you mean 'x'?", or nothing."""
        return did_you_mean(word, known) if self._may_guess() else ""

    def _may_guess(self) -> bool:
        self._num_guesses += 1
        return self._num_guesses <= MAX_GUESSES

    def _standing(self, loc: KeyPath) -> KeyPath:
        """The part of pydantic's location that is in the document: it also names members of unions."""
        path: KeyPath = ()
        for part in loc:
            if self.node((*path, part)) is None:
                break

            path = (*path, part)

        return path

    def _slip(self, path: KeyPath) -> str:
        """The mistake that was probably made."""
        node = self.node(path)
        if isinstance(node, Scalar):
            number = takes(path, int) or takes(path, float)
            if number and isinstance(node.value, float) and not math.isfinite(node.value):
                return "; it must be finite"
            if options := options_at(path):  # quotes would not make another value one of them
                if node.value in options:
                    return "; leave out the quotes"
                return self.did_you_mean(str(node.value), options)

            if isinstance(node.value, str) and node.quoted and number:
                try:
                    meant = core_value(node.value)
                except ValueError:
                    return ""

                if isinstance(meant, int | float):
                    return "; leave out the quotes"

                return ""

            if isinstance(node.value, str) and "dataset" in keys_at(path):
                return f" such as {{dataset: {shortened(node.value)}}}"
            if node.value is not None and not isinstance(node.value, str) and takes(path, str):
                return "; put it in quotes"
            if len(path) == 2 and path[0] == "space" and node.value is not None:
                return " such as {low: …, high: …}; to hold a parameter at one value, put it under fixed"

        if isinstance(node, Sequence) and len(path) == 2 and path[0] == "space":
            return " such as {low: …, high: …} or {choices: […]}"
        if isinstance(node, Mapping) and must_be(path) == "a list" and keys_at((*path, 0)):
            return "; put it in brackets, [{…}]"

        return ""

    def _mark(self, path: KeyPath, at: Literal["key", "value"]) -> Mark:
        while (node := self.node(path)) is None:
            path = path[:-1]

        siblings = entries_at(self.root, *path[:-1])
        if at == "key" and path and path[-1] in siblings:
            return siblings[str(path[-1])].key_mark

        return node.mark
