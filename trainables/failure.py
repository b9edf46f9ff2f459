"""An exception's text, made fit for records and terminals: a user's code may raise anything with
any text.
"""

from __future__ import annotations

import traceback

from lmoe_tune.errors import LmoeTuneError

MESSAGE_CHARS = 2_000
TRACEBACK_CHARS = 20_000


def message_of(error: BaseException) -> str:
    """The exception's type and text, short and printable; of our own errors the text alone."""
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be made"
    if not isinstance(error, LmoeTuneError):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return printable(text, MESSAGE_CHARS)


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, the middle of a very long one left out."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # its text cannot be made
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
    return printable(text, TRACEBACK_CHARS)


def printable(text: str, limit: int) -> str:
    """At most about `limit` characters that every terminal and file takes; a note says how much is
    left out.
    """
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} … ({len(text) - 2 * half} characters) … {text[-half:]}"
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )
