"""How values, names, sizes, durations and guesses appear in messages: on one line, short, and
without a password.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping

MAX_SHOWN = 60  # characters of a value in a message
MAX_READ = 500  # characters looked at for it
_PASSWORD = re.compile(r"://[^/\s]*@")
_SECRET_WORDS = "token|pass|pwd|secret|key|auth|cred|sig"
_SECRET_NAME = re.compile(rf"{_SECRET_WORDS}|^user", re.IGNORECASE)
_SECRET_ARGUMENT = re.compile(
    rf"([?&;][^=&;\s]*(?:{_SECRET_WORDS})[^=&;\s]*=)[^&;\s]+", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether an argument of a URL of this name holds something to keep to oneself."""
    return _SECRET_NAME.search(name) is not None


def masked(text: str) -> str:
    """The text with the user, password and secret arguments of any URL in it replaced by '***'."""
    return _SECRET_ARGUMENT.sub(r"\1***", _PASSWORD.sub("://***@", text))


def printable(text: str) -> str:
    """The text on one line: control characters and line breaks as escapes, bytes that are not UTF-8
    as \\xe9.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    """The text, printable, without credentials and cut to so many characters."""
    if len(text) > MAX_READ:  # the cut may take away the '@' after a password
        text = re.sub(r"://[^/\s]*$", "://…", text[:MAX_READ])

    text = printable(masked(text))
    if len(text) <= most:
        return text

    return text[: most - 1] + "…"


def shown(value: object) -> str:
    """A value as the spec writes it, for "value is …": 'abc', 0.5, true, empty, a list."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, int | float):
        return shortened(repr(value))
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    for kind, called in ((Mapping, "mapping"), (list | tuple, "list")):
        if isinstance(value, kind):
            return f"a {called}" if value else f"an empty {called}"

    return type(value).__name__


def dotted(path: Iterable[str | int]) -> str:
    """The path of a setting as `--set` takes it: search.start_from.0.mixing_alpha."""
    return ".".join(shortened(str(part)) for part in path)


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if any."""
    if len(word) > MAX_SHOWN:
        return None

    by_lower = {name.lower(): name for name in known}
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in by_lower:
        return by_lower[plain]

    # Swapped letters first: by difflib's measure 'lgo' is as close to 'low' as to 'log'.
    swapped = [name for name in by_lower if len(plain) > 1 and sorted(name) == sorted(plain)]
    close = swapped or difflib.get_close_matches(plain, by_lower, n=1, cutoff=0.6)
    begun = [name for name in by_lower if len(plain) > 1 and name.startswith(plain)]
    if not close and len(begun) == 1:
        close = begun

    if close:
        return by_lower[close[0]]

    return None


def duration(seconds: float) -> str:
    """Seconds as 45s, 12m 03s or 5h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"

    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def readable_size(num_bytes: float) -> str:
    """Bytes as 800 B, 1.5 MB or 6.4 GB."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"

        num_bytes /= 1000

    if num_bytes < 1000:
        return f"{num_bytes:,.3g} GB"

    return f"{num_bytes:,.0f} GB"


def counted(count: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("s"):
        noun += "e"
    return f"{count:,} {noun}s"


def first_few(words: Iterable[str], most: int = 8, separator: str = ", ") -> str:
    """The words with commas between them; of many the first ones, and how many more there are."""
    listed = list(words)
    if len(listed) <= most + 1:  # "and 1 more" would be as long as the word
        return separator.join(listed)

    return f"{separator.join(listed[:most])} and {len(listed) - most:,} more"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean 'x'?', or nothing."""
    guess = suggestion(word, known)
    if guess is not None:
        return f"; did you mean '{guess}'?"

    return ""
