"""Writes `docs/messages.md`: every message that a user may see, found in the code's syntax trees.

python docs/make_messages.py            writes the page
python docs/make_messages.py --check    ends with 1 where the page is not what this would write
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "messages.md"
CODE = [HERE.parent / "lmoe_tune", HERE.parent / "trainables"]

HEAD = """\
# Messages: what they say, and what to do

This page is made from the code by `docs/make_messages.py`: every error that can end a command, every problem of a
spec or of data, and every caution. ‹…› marks a part that is filled in; if a message is put together
elsewhere, only the part that is in the code is shown. To look one up, search for some of its words.

An error goes to stderr, without a traceback unless `--debug` is given. Exit codes: 0 done, 1 failed, 2 something to fix
in what was typed, set or given, 3 too many failed trials, 130 interrupted and resumable."""

TITLES = {
    "spec": "Problems of a spec",
    "data": "Problems of the data",
    "caution": "Cautions and progress",
}
TOLD = {
    "spec": """\
All of them at once, each after `file:line:column key:`. Exit code 2. Fix the file, or what `--set` says;
`lmoe-tune check SPEC` checks it again.""",
    "data": """\
`lmoe-tune data inspect SPEC` lists them, and a search starts with the same inspection. Exit code 2 if they stop
it.""",
    "caution": "Lines on stderr, in a report or with a verdict; the command continues.",
}
CAUTIONS = ("say", "on_message")
LISTS = ("notes", "cautions", "warnings", "remarks")
WITH_FIX = ("LayoutError", "UnusableError")  # their second argument is what to do
SEPARATORS = (", but must be ", "; ", ". ", ": ")


@dataclass(frozen=True, order=True)
class Message:
    """One message: the section or class of error that it belongs to, its text, and the file that it is in."""

    kind: str
    text: str
    file: str


def page() -> str:
    """The whole page."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files()}
    errors = errors_of(trees.values())
    found = sorted(set(messages(trees, set(errors))))
    parts = [HEAD]
    for kind in ("spec", "data", *sorted(errors), "caution"):
        own = [message for message in found if message.kind == kind]
        if own:
            title = TITLES.get(kind, f"`{kind}`")
            parts += [f"## {title}", TOLD.get(kind) or errors[kind], table(own)]
    return "\n\n".join(parts) + "\n"


def table(found: Iterable[Message]) -> str:
    """What it says, what to do as far as it says so, and where it is from."""
    lines = ["| what it says | what to do | from |", "| --- | --- | --- |"]
    for message in found:
        what, then = halves(message.text)
        lines.append(f"| {cell(what)} | {cell(then)} | `{message.file}` |")
    return "\n".join(lines)


def halves(text: str) -> tuple[str, str]:
    """A message before and after the place where it turns to what must be or what to do."""
    for separator in SEPARATORS:
        what, found, then = text.partition(separator)
        if found and (separator != ": " or what.count(" ") > 2):
            return what, (found + then).lstrip(",;:. ")
    return text, ""


def cell(text: str) -> str:
    """Text within a table: Markdown leaves it as it is."""
    escaped = re.sub(r"([\\`*_\[\]<>#{}~])", r"\\\1", text)
    return escaped.replace("|", "&#124;").replace("\n", " ")


def messages(trees: Mapping[Path, ast.Module], errors: set[str]) -> Iterator[Message]:
    """All messages in the code."""
    named_texts = constants(trees.values())
    for path, tree in trees.items():
        file = str(path.relative_to(HERE.parent))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                texts = named_texts | assigned(function)
                for kind, expression in spoken(function, errors):
                    for text in rendered(expression, texts):
                        if re.search(r"[a-z]{3}.* ", re.sub("‹.*?›", "", text)):
                            yield Message(kind, text, file)


def files() -> list[Path]:
    """The modules; those that help tests of other projects are left out."""
    found = [path for folder in CODE for path in sorted(folder.rglob("*.py"))]
    return [path for path in found if "testing" not in path.parts]


def errors_of(trees: Iterable[ast.Module]) -> dict[str, str]:
    """The classes of errors that a user is told of, each with what its docstring says and its exit code."""
    classes = {
        node.name: node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    codes = {"LmoeTuneError": 1}
    for _ in classes:  # until nothing is added: a chain of bases is no longer than that
        for name, node in classes.items():
            known = [codes[base] for base in map(base_name, node.bases) if base in codes]
            if known:
                codes[name] = exit_code(node, known[0])
    return {
        name: f"{first_paragraph(classes[name])} Exit code {code} if it ends a command."
        for name, code in codes.items()
    }


def base_name(base: ast.expr) -> str:
    return ast.unparse(base).rpartition(".")[2]


def exit_code(node: ast.ClassDef, inherited: int) -> int:
    """The `exit_code` that a class sets, else that of its base."""
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "exit_code":
            return int(ast.literal_eval(line.value))
    return inherited


def first_paragraph(node: ast.ClassDef) -> str:
    told = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return " ".join(told.split())


def spoken(function: ast.FunctionDef, errors: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """Section or class, and the expression of each message of a function, those within it left to themselves."""
    for node in own_nodes(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name in errors and node.exc.args:
                yield name, with_fix(node.exc.args) if name in WITH_FIX else node.exc.args[0]
        if isinstance(node, ast.Call):
            yield from called(node)


def called(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """The messages that a call takes."""
    of, _, name = ast.unparse(node.func).rpartition(".")
    if of.endswith("findings") and name in ("add", "add_missing", "refuse") and len(node.args) > 1:
        lead = {"refuse": "value is ‹value›, but must be ", "add_missing": "is missing: "}
        yield "spec", ast.JoinedStr([ast.Constant(lead.get(name, "")), *parts(node.args[1])])
    elif name == "Problem" and len(node.args) == 3:
        yield "spec", node.args[2]
    elif name == "Finding" and len(node.args) == 3:
        yield "data", joined(node.args)
    elif node.args and (name in CAUTIONS or (name == "append" and of.rpartition(".")[2] in LISTS)):
        yield "caution", node.args[0]


def joined(args: list[ast.expr]) -> ast.expr:
    """Where, what and fix of a finding as one message."""
    pieces = parts(args[0])
    for argument, between in zip(args[1:], (": ", "; "), strict=False):
        pieces += [ast.Constant(between), *parts(argument)]
    return ast.JoinedStr(pieces)


def with_fix(args: list[ast.expr]) -> ast.expr:
    """What is wrong, and its fix, as one message."""
    if len(args) == 1:
        return args[0]
    return ast.JoinedStr([*parts(args[0]), ast.Constant("; "), *parts(args[1])])


def parts(node: ast.expr) -> list[ast.expr]:
    """The pieces of a text."""
    if isinstance(node, ast.JoinedStr):
        return list(node.values)
    if isinstance(node, ast.Constant):
        return [node]
    return [ast.FormattedValue(node, -1)]


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef):
            continue
        yield node
        todo.extend(ast.iter_child_nodes(node))


def assigned(function: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """What texts the function gives to its variables."""
    found: dict[str, list[ast.expr]] = {}
    for node in own_nodes(function):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        if isinstance(node.value, ast.JoinedStr | ast.Constant | ast.IfExp | ast.BinOp):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def constants(trees: Iterable[ast.Module]) -> dict[str, list[ast.expr]]:
    """The sentences that a module has given a name in capitals, such as UNPACK_AGAIN."""
    return {
        node.targets[0].id: [node.value]
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and " " in str(node.value.value)
    }


def rendered(node: ast.expr, texts: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The text of an expression, with ‹…› for what is filled in; each of several where it has several."""
    if isinstance(node, ast.IfExp):
        yield from rendered(node.body, texts)
        yield from rendered(node.orelse, texts)
    elif isinstance(node, ast.Name) and node.id in texts:
        for value in texts[node.id]:
            yield from rendered(value, {})
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = next(rendered(node.left, texts), ""), next(rendered(node.right, texts), "")
        yield left + right
    else:
        yield " ".join("".join(piece(part, texts) for part in parts(node)).split())


def piece(part: ast.expr, texts: dict[str, list[ast.expr]]) -> str:
    """A piece of a text: its words, or the name of what is filled in."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(value, ast.Constant | ast.JoinedStr):
        return "".join(piece(one, texts) for one in parts(value))
    if isinstance(value, ast.Name) and len(texts.get(value.id, ())) == 1:
        return next(rendered(texts[value.id][0], {}))
    return f"‹{named(value)}›"


def named(value: ast.expr) -> str:
    """A short name of what is filled in."""
    if isinstance(value, ast.Name):
        return value.id.strip("_").replace("_", " ")
    if isinstance(value, ast.Attribute):
        return value.attr.strip("_").replace("_", " ")
    if isinstance(value, ast.Subscript):
        return named(value.value)
    if isinstance(value, ast.Call):
        command = ast.unparse(value.func)
        if command.startswith("advice."):
            return f"lmoe-tune {command.removeprefix('advice.').replace('_', '-')} …"
        if value.args and not isinstance(value.args[0], ast.GeneratorExp | ast.Starred):
            return named(value.args[0])
        return named(value.func)
    return "…"


def main() -> None:
    wanted = page()
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != wanted:
            sys.exit(f"{PAGE} is out of date: python docs/make_messages.py")
        return
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
