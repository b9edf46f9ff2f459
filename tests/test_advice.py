"""What is offered to be typed next is understood by the command line, in any shell and from any home."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer.main

from lmoe_tune import advice
from lmoe_tune.cli.main import app

FOLDER = Path("my spaces/vögel's.yaml")
OFFERS = [
    advice.search("cars", name="cars2", fresh=True, allow_changes=True, home=FOLDER),
    advice.search(FOLDER),
    advice.resume(),
    advice.resume("cars", trials="+8", time="8h", gpu_hours=0.5, retry_failed=True, address="auto"),
    advice.resume("cars", allow_changes=True, home=FOLDER),
    advice.train(FOLDER, params=Path("p.yaml"), home=FOLDER),
    advice.repeat("cars", 3, home=FOLDER),
    advice.prune_checkpoints("cars", keep=1, home=FOLDER),
    advice.list_sweeps(home=FOLDER),
    advice.status("cars", home=FOLDER),
    advice.leaderboard("cars", home=FOLDER),
    advice.best("cars", home=FOLDER),
    advice.audit("cars", home=FOLDER),
    advice.compare("cars", "birds", home=FOLDER),
    advice.confirm("cars", seeds=8, top=2, allow_unfinished=True, home=FOLDER),
    advice.confirm("cars", splits=(0, 1), tuned_comparators=True),
    advice.report("cars", home=FOLDER),
    advice.export("cars", "out folder", home=FOLDER),
    advice.predict("out folder"),
    advice.sync("cars", tracking_uri="http://server:5000", home=FOLDER),
    advice.ui("cars", home=FOLDER),
    advice.check(FOLDER),
    advice.inspect(home=FOLDER),
    advice.build(home=FOLDER),
    advice.doctor(home=FOLDER),
    advice.doctor(rebuild="cars"),
    advice.init("mine", space="folder"),
    advice.methods(),
]


@pytest.mark.parametrize("offered", OFFERS)
def test_every_command_that_is_offered_is_understood(offered: str) -> None:
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
        name
        for name, function in vars(advice).items()
        if callable(function) and getattr(function, "__module__", "") == advice.__name__
    }
    tried = {offered.split()[1].replace("-", "_") for offered in OFFERS}
    other_names = {"inspect", "build", "list_sweeps", "repeat"}  # data inspect, …, train --trial

    found = {name for name in offering if not name.startswith("_")}
    assert found - other_names == (tried - {"data", "list"}) | {"setting", "setup"}


def test_the_home_is_named_only_where_the_command_would_look_in_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)
    default, other = tmp_path / "lmoe_runs", tmp_path / "my runs"

    assert advice.status("cars", home=default) == "lmoe-tune status cars"
    assert advice.status("cars", home=other) == "lmoe-tune status cars --home 'my runs'"
    assert advice.status("cars", home=Path("/far")) == "lmoe-tune status cars --home /far"

    monkeypatch.setenv("LMOE_TUNE_HOME", str(other))
    assert advice.status("cars", home=other) == "lmoe-tune status cars"
    assert advice.status("cars", home=default) == "lmoe-tune status cars --home lmoe_runs"


def test_a_setting_is_quoted_for_the_shell() -> None:
    assert advice.setting("data.cache", "off") == "--set data.cache=off"
    assert advice.setting("model.weights", "my net.pt") == "--set 'model.weights=my net.pt'"
    assert advice.setting("search.pruner", True) == "--set search.pruner=true"
    assert advice.setting("resources.cpu", "…") == "--set resources.cpu=…"


def test_an_extra_is_quoted_for_shells_that_read_brackets() -> None:
    assert advice.setup("onnx") == "pip install 'lmoe-tune[onnx]'"
