"""The methods a sweep can tune, by name, and the Ray Trainable that runs them.

`METHODS` is the registry. Importing a method's module needs neither torch nor Ray: a declaration
says what can be tuned, and the objective is imported where it trains.
"""

from trainables.method import (
    METHODS,
    Method,
    configured,
    declaration_of,
    declarations,
    load_method,
    resolve_declaration,
)

__all__ = [
    "METHODS",
    "Method",
    "configured",
    "declaration_of",
    "declarations",
    "load_method",
    "resolve_declaration",
]
