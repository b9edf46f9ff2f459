"""Every text file and pipe names its encoding: the locale's would garble what another machine wrote."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("lmoe_tune", "trainables", "tests", "benchmarks", ".ci", "docker", "docs")
BINARY = ("Image", "gzip", "tarfile", "zipfile", "os", "webbrowser")  # their `open` is not for text
TEMPORARY = ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile")
PIPED = ("run", "Popen", "call", "check_call", "check_output")
WRAPPERS = ("TextIOWrapper", "FileHandler", "RotatingFileHandler")


def in_the_locale(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that read or write text without saying how it is encoded."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        names = {keyword.arg for keyword in node.keywords}
        if "encoding" not in names and None not in names and _is_text(node, names):
            yield node


def _is_text(call: ast.Call, names: set[str | None]) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        name, owner, method = function.attr, ast.unparse(function.value), True
    elif isinstance(function, ast.Name):
        name, owner, method = function.id, "", False
    else:
        return False

    if name == "read_text":
        return method and not call.args
    if name == "write_text":
        return method and len(call.args) == 1
    if name == "open" and owner not in BINARY:
        return "b" not in _mode(call, 0 if method and owner != "io" else 1)
    if name == "fdopen":
        return "b" not in _mode(call, 1)
    if name in TEMPORARY:
        return bool(call.args or "mode" in names) and "b" not in _mode(call, 0)

    piped = name in PIPED and bool({"text", "universal_newlines"} & names)
    return piped or name in WRAPPERS


def _mode(call: ast.Call, place: int) -> str:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    given += call.args[place : place + 1]
    mode = given[0] if given else None
    return str(mode.value) if isinstance(mode, ast.Constant) else "r"


def test_every_file_and_pipe_of_text_names_its_encoding() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)[:80]}"
        for path in files
        for call in in_the_locale(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert len(files) > 100
    assert not found, 'say encoding="utf-8" (or use lmoe_tune.durable):\n' + "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "open(path, 'w')",
        "io.open(path)",
        "path.open()",
        "(folder / 'lock').open('a+')",
        "os.fdopen(descriptor, 'w')",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(command, text=True)",
        "subprocess.Popen(command, universal_newlines=True)",
        "logging.FileHandler(path)",
    ],
)
def test_what_would_be_in_the_encoding_of_the_locale_is_found(code: str) -> None:
    assert list(in_the_locale(ast.parse(code)))


def test_bytes_and_named_encodings_are_left_alone() -> None:
    code = (
        "open(path, 'rb'); path.open('wb'); Image.open(path); os.open(path, os.O_RDONLY)\n"
        "path.read_text(encoding='utf-8'); tempfile.NamedTemporaryFile(); subprocess.run(command)\n"
    )

    assert not list(in_the_locale(ast.parse(code)))
