"""Figures of the code's shape, printed by `make lint`: size in AST statements, and how much the code breathes.

What is counted is `lmoe_tune` and `trainables`; layout does not change the number of statements.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("lmoe_tune", "trainables")
START = 12_600  # statements when the package was put in order
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Print one line of figures."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))

    statements = lines = long_lines = conditionals = nested = 0
    inside: list[bool] = []  # a line within a function's body: is it blank?
    for path in files:
        text = path.read_text(encoding="utf-8")
        rows = text.splitlines()
        tree = ast.parse(text)

        lines += len(rows)
        long_lines += sum(len(row) > 100 for row in rows)
        nodes = list(ast.walk(tree))
        statements += sum(isinstance(node, ast.stmt) for node in nodes)
        conditionals += sum(isinstance(node, ast.IfExp) for node in nodes)
        nested += sum(isinstance(node, COMPREHENSIONS) and _holds_another(node) for node in nodes)
        numbers = {number for node in _functions(tree) for number in _body(node)}
        inside.extend(not rows[number - 1].strip() for number in sorted(numbers))

    print(
        f"{statements} statements in {len(files)} files ({statements / START - 1:+.1%} since {START}); "
        f"blank lines inside functions {sum(inside) / len(inside):.1%} (at least 5%); "
        f"per 1,000 lines: conditional expressions {1000 * conditionals / lines:.1f} (at most 10), "
        f"nested comprehensions {1000 * nested / lines:.2f} (at most 0.5); "
        f"lines over 100 columns {long_lines / lines:.1%} (at most 1%)"
    )


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield node


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
        first = node.body[1]  # the docstring has blank lines of its own
    return range(first.lineno, (node.end_lineno or first.lineno) + 1)


def _holds_another(node: ast.AST) -> bool:
    return any(isinstance(child, COMPREHENSIONS) for child in ast.walk(node) if child is not node)


if __name__ == "__main__":
    main()
