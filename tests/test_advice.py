"""What is offered to be typed next is understood by the command line, in any shell and from any home,
and is put together in `lmoe_tune.advice` alone. `tests/cli/test_advice_typed.py` types it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import typer.main

import lmoe_tune
import trainables
from lmoe_tune import advice
from lmoe_tune.cli.main import app

FOLDER = Path("my spaces/vögel's.yaml")
OFFERS = [
    advice.search("cars", home=FOLDER),
    advice.search(FOLDER),
    advice.resume("cars", trials="+8", time="8h", gpu_hours=0.5, retry_failed=True),
    advice.resume("cars", max_failed="+2", home=FOLDER),
    advice.repeat("cars", 3, home=FOLDER),
    advice.leaderboard("cars", home=FOLDER),
    advice.confirm("cars", seeds=8, top=2, allow_unfinished=True, home=FOLDER),
    advice.confirm("cars", splits=(0, 1), tuned_comparators=True),
    advice.export("cars", "out folder", home=FOLDER),
    advice.predict("out folder"),
    advice.sync("cars", home=FOLDER),
    advice.ui("cars", home=FOLDER),
    advice.inspect(home=FOLDER),
    advice.doctor(home=FOLDER),
    advice.doctor(rebuild="cars"),
]
OTHER_NAMES = {"inspect": "data", "repeat": "train"}
FOREIGN_OPTIONS = {
    "--head",  # of `ray start`
    "--allowed-hosts", "--artifacts-destination", "--experiment-id", "--host", "--log-level",
    "--port", "--uvicorn-opts", "--workers",  # MLflow's
    "--after-kill", "--git-dir",  # of our own processes, of git
    "--format", "--query-gpu", "--raylet_socket_name", "--help",
}  # fmt: skip


def root() -> typer.main.TyperGroup:
    found = typer.main.get_command(app)
    assert isinstance(found, typer.main.TyperGroup)
    return found


def test_every_command_that_is_offered_is_understood() -> None:
    for offered in OFFERS:
        understand(offered)


def understand(offered: str) -> None:
    program, *words = shlex.split(offered)
    assert program == "lmoe-tune"

    group = typer.main.get_command(app)
    context = group.make_context(program, words)
    while hasattr(group, "resolve_command"):
        name, group, rest = group.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = group.make_context(name, rest, parent=context)


def test_every_function_that_offers_a_command_is_tried() -> None:
    offering = {
        OTHER_NAMES.get(name, name)
        for name, function in vars(advice).items()
        if callable(function) and getattr(function, "__module__", "") == advice.__name__
    }
    tried = {offered.split()[1] for offered in OFFERS}

    found = {name for name in offering if not name.startswith("_")}
    assert found == tried | {"setting", "setup", "at_home"}


# ------------------------------------------------------------------ nowhere else


def texts() -> Iterator[tuple[str, str]]:
    """Every piece of text in the package that is no documentation, with its place."""
    for package in (lmoe_tune, trainables):
        folder = Path(package.__file__ or "").parent
        for path in sorted(folder.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documentation = {
                id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
            }
            for node in ast.walk(tree):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if is_text and id(node) not in documentation:
                    where = f"{path.relative_to(folder.parent)}:{node.lineno}"
                    yield where, node.value


def test_no_command_line_is_written_out_elsewhere() -> None:
    names = "|".join(root().commands)
    command = re.compile(rf"\blmoe-tune ({names})\b")
    found = [
        f"{where}: {text!r}"
        for where, text in texts()
        if command.search(text) and text != "lmoe-tune search space"  # the title of the schema
    ]

    assert not found, "build these with lmoe_tune.advice"


def test_no_extra_is_named_elsewhere_and_each_that_is_can_be_installed() -> None:
    there = set(metadata.metadata("lmoe-tune").get_all("Provides-Extra") or ())
    folder = Path(lmoe_tune.__file__ or "").parent
    sources = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"advice\.setup\(['\"]([\w-]+)", text)}

    assert not [where for where, text in texts() if "pip install 'lmoe-tune[" in text]
    assert named and named <= there


def test_every_option_in_a_message_is_one_of_the_command_line() -> None:
    commands = [root(), *root().commands.values(), *root().commands["data"].commands.values()]  # type: ignore[attr-defined]
    options = {option for command in commands for one in command.params for option in one.opts}
    found = {
        f"{where}: {option}"
        for where, text in texts()
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
        if option not in options | FOREIGN_OPTIONS
    }

    assert not found


# ------------------------------------------------------------------ as it is typed


def test_the_home_is_named_only_where_the_command_would_look_in_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)
    default, other = tmp_path / "lmoe_runs", tmp_path / "my runs"

    assert advice.ui("cars", home=default) == "lmoe-tune ui cars"
    assert advice.ui("cars", home=other) == "lmoe-tune ui cars --home 'my runs'"
    assert advice.ui("cars", home=Path("/far")) == "lmoe-tune ui cars --home /far"

    monkeypatch.setenv("LMOE_TUNE_HOME", str(other))
    assert advice.ui("cars", home=other) == "lmoe-tune ui cars"
    assert advice.ui("cars", home=default) == "lmoe-tune ui cars --home lmoe_runs"


def test_a_path_that_looks_like_an_option_is_none() -> None:
    assert advice.search(Path("-odd.yaml")) == "lmoe-tune search ./-odd.yaml"


def test_a_setting_is_quoted_for_the_shell() -> None:
    assert advice.setting("data.cache", "off") == "--set data.cache=off"
    assert advice.setting("model.weights", "my net.pt") == "--set 'model.weights=my net.pt'"
    assert advice.setting("search.pruner", True) == "--set search.pruner=true"
    assert advice.setting("resources.cpu", "…") == "--set resources.cpu=…"


def test_an_extra_is_quoted_for_shells_that_read_brackets() -> None:
    assert advice.setup("onnx") == "pip install 'lmoe-tune[onnx]'"
