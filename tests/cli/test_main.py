from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

import lmoe_tune
from lmoe_tune.cli import doctor
from lmoe_tune.cli.main import _cause, _unforeseen, app, run
from lmoe_tune.spec import load_spec
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.view import read_sweep
from lmoe_tune.training.platform import resolve_platform
from trainables import declarations

Cli = Callable[..., Any]
SNAPSHOT = Path(__file__).with_name("commands.txt")
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = ("torch", "ray", "optuna", "mlflow", "numpy", "yaml", "sklearn", "pandas")


def describe(command: Any, name: str) -> Iterator[str]:
    """The command's name, arguments, options and their values, one a line."""
    yield name
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield f"  {word(parameter)}{'' if parameter.required else ' (optional)'}"
        elif "--help" not in parameter.opts:
            value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
            yield f"  {', '.join([*parameter.opts, *parameter.secondary_opts])}{value}"
    for child, found in sorted(getattr(command, "commands", {}).items()):
        yield from describe(found, f"{name} {child}")


def word(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()).strip("[]")


def test_commands_and_flags_are_those_of_the_snapshot() -> None:
    """A change of the command line is deliberate: write the new one with UPDATE_SNAPSHOTS=1."""
    found = "\n".join(describe(typer.main.get_command(app), "lmoe-tune")) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8")


PROMISED = [
    "search SPEC --name --trials --time --gpu-hours --set --address --fresh --dry-run --json --home",
    "resume NAME --trials --retry-failed --home",
    "check SPEC",
    "init NAME",
    "train SPEC --params",
    "list --format",
    "status NAME --format",
    "leaderboard NAME --format",
    "best NAME --format",
    "sync NAME --tracking-uri",
    "ui",
    "methods",
    "schema",
    "doctor",
]


def test_what_the_contract_promises_is_there() -> None:
    for promised in PROMISED:
        name, *wanted = promised.split()
        command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        arguments = {word(p) for p in command.params if p.param_type_name == "argument"}
        assert {word for word in wanted if word.startswith("--")} <= options, promised
        assert {word for word in wanted if not word.startswith("--")} <= arguments, promised


# ------------------------------------------------------------------ help


def test_help_of_every_command_imports_nothing_heavy() -> None:
    """One process shows all: what one of them imports is there for good."""
    code = f"""if True:
        import sys
        from lmoe_tune.cli import main
        for command in ([], *([name] for name in {COMMANDS!r})):
            assert main.run([*command, "--help"]) == 0, command
            if not command:
                assert "pydantic" not in sys.modules
            assert not set({HEAVY!r}) & set(sys.modules), command
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: lmoe-tune") == 1 + len(COMMANDS)


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("width", [80, 40])
def test_help_cuts_no_option_in_a_narrow_terminal(width: int) -> None:
    group = typer.main.get_command(app)
    commands = {**group.commands, **group.commands["data"].commands}  # type: ignore[attr-defined]
    for name, command in commands.items():
        context = command.context_class(
            command, info_name=name, terminal_width=width, max_content_width=width
        )
        text = command.get_help(context)
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert re.search(rf"(?<!\S){option}(?![\w-])", text), f"{name} {option}"


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied", 2),
        (OSError(errno.EIO, "Input/output error", "/x"), "OSError: [Errno 5]", 1),
        (KeyError("x"), "KeyError: 'x'", 1),
    ],
)
def test_what_the_user_can_mend_in_a_path_is_said_without_the_name_of_an_exception(
    error: Exception, message: str, code: int
) -> None:
    found = _unforeseen(error)
    assert (found[0].startswith(message), found[1]) == (True, code)


def test_an_error_in_a_users_own_module_is_said_with_its_place(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def loss():\n    return int('x')\n", encoding="utf-8")
    code = compile(own.read_text(encoding="utf-8"), str(own), "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    with pytest.raises(ValueError, match="invalid literal") as caught:
        names["loss"]()
    assert f"({own}, line 2)" in _unforeseen(caught.value)[0]


def test_the_version_is_printed(cli: Cli) -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{lmoe_tune.__version__}\n", "")


# ------------------------------------------------------------------ bad usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", "nonsense"), "no shipped search space"),
        (("check", "digts"), "did you mean"),
        (("status", "nothing"), "no sweep 'nothing'"),
        (("leaderboard", "nothing"), "no sweep 'nothing'"),
        (("best", "nothing"), "no sweep 'nothing'"),
        (("resume",), "no sweeps in"),
        (("resume", "nothing"), "no sweep 'nothing'"),
        (("resume", "../../etc"), "no sweep '../../etc'"),
        (("sync", "nothing"), "no sweep 'nothing'"),
        (("list", "--format", "xml"), "--format is 'xml', but must be one of table, json, csv"),
        (("methods", "--format", "yaml"), "must be one of table, json, csv"),
        (("compare", "a", "b", "--format", "pdf"), "must be one of table, json, csv, html"),
        (("init", "../mine"), "NAME is '../mine', but must be"),
        (("init", "mine", "--from", "digts"), "must be one of aircraft, birds"),
        (("search", "digits", "--time", "soon"), "time is 'soon', but must be a duration"),
        (("resume", "--trials", "many"), "trials is 'many'"),
        (("resume", "--trials", "-3"), "trials is '-3'"),
        (("search", "digits", "--trials", "0"), "trials is '0', but must be +N"),
        (("search", "digits", "--set", "train.lr"), "train.lr"),
        (("search", "digits", "--set", "train.lr=fast"), "train.lr"),
        (("search", "digits", "--name", "../elsewhere"), "name"),
        (("train", "digits", "--params", "missing.yaml"), "missing.yaml"),
        (("search", "digits", "--name", ""), "what follows --name is empty"),
        (("search", "digits", "--name="), "what follows --name= is empty"),
        (("--home", " ", "list"), "what follows --home is empty"),
        (("status", ""), "an argument is empty"),
        (
            ("check", "digits", "--set", "train.epochs=3", "train.lr=0.1"),
            "'train.lr=0.1' needs its own --set before it",
        ),
        (("search", "digits", "--name", "run #2"), "--name name: value is 'run #2', but must be"),
        (("frobnicate",), "frobnicate"),
        (("search",), "SPEC"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_usage_is_exit_code_2_with_a_message_on_stderr(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing was written"

    debugged = cli("--debug", *arguments)
    assert (debugged.returncode, debugged.stdout) == (2, "")
    assert debugged.stderr.endswith(done.stderr.splitlines(keepends=True)[-1])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied"),
        (RuntimeError("no\nway"), 1, f"error: RuntimeError: no\nway ({__file__}, line "),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), 2, "error: 'é' cannot be written"),
        (KeyboardInterrupt(), 130, "\ninterrupted; the same command continues"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_nothing_foresaw_ends_in_the_same_way_with_debug(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lmoe_tune.spec.json_schema", fail)
    plain, debugged = cli("schema"), cli("--debug", "schema")

    assert said in plain.stderr and "Traceback" not in plain.stderr
    assert (")\n  (run it again with --debug" in plain.stderr) == (code == 1)
    assert (plain.returncode, debugged.returncode) == (code, code)
    assert debugged.stderr.endswith(plain.stderr)
    assert ("Traceback" in debugged.stderr) == (code != 130)


def test_debug_shows_the_trace(cli_process: Cli) -> None:
    done = cli_process("--debug", "status", "nothing")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no sweep 'nothing'")
    assert done.returncode == 2


def test_a_home_that_is_a_file_is_bad_usage(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments in (("search", "digits"), ("train", "digits"), ("list",)):
        done = cli(*arguments, "--home", "file")
        assert done.returncode == 2, done.stderr
        assert "--home is 'file', but must be a folder" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Error:" not in done.stderr, "a message, not the name of an exception"


# ------------------------------------------------------------------ init


def test_init_writes_a_spec_that_check_accepts(cli: Cli, tmp_path: Path) -> None:
    written = cli("init", "mine", "--from", "digits")
    assert (written.returncode, written.stdout) == (0, "spaces/mine.yaml\n"), written.stderr
    assert "lmoe-tune search spaces/mine.yaml" in written.stderr
    checked = cli("check", "spaces/mine.yaml")
    assert checked.returncode == 0, checked.stderr
    assert (tmp_path / "spaces" / "mine.yaml").stat().st_mode & 0o002 == 0


def test_init_of_a_name_of_ones_own_is_for_ones_own_images(cli: Cli, tmp_path: Path) -> None:
    for name, dataset in (("finches", "folder"), ("cars", "stanford_cars")):
        written = cli("init", name)
        assert f"lmoe-tune data inspect spaces/{name}.yaml" in written.stderr
        assert f"id: {{dataset: {dataset}," in (tmp_path / "spaces" / f"{name}.yaml").read_text(
            encoding="utf-8"
        )


def test_init_leaves_a_file_that_is_there_alone(cli: Cli, tmp_path: Path) -> None:
    cli("init", "mine")
    path = tmp_path / "spaces" / "mine.yaml"
    path.write_text("edited", encoding="utf-8")
    again = cli("init", "mine.yaml")
    assert (again.returncode, again.stdout) == (2, "")
    assert "spaces/mine.yaml is there already" in again.stderr
    assert path.read_text(encoding="utf-8") == "edited"


def test_init_where_spaces_is_a_file_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "spaces").touch()
    done = cli("init", "mine")
    assert done.returncode == 2
    assert "spaces is a file, but must be a folder" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ check


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.yaml"
    path.write_text(
        "name: broken\n"
        "trainable: logit_mixoe\n"
        "data: {id: {dataset: digits}}\n"
        "space:\n"
        "  mixing_alfa: {low: 0.1, high: 10}\n"
        "  consistency_weight: {low: 5, high: 0}\n"
        "objective: {metric: val_auroc, direction: maximise}\n"
        "epocs: 3\n",
        encoding="utf-8",
    )
    return path.name


def test_check_reports_every_problem_with_its_place(cli: Cli, broken: str) -> None:
    done = cli("check", broken)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert any(
        line.startswith("broken.yaml:5:3 space.mixing_alfa:") and "mixing_alpha" in line
        for line in lines
    )
    assert any(line.startswith("broken.yaml:6:") and "consistency_weight" in line for line in lines)
    assert any(line.startswith("broken.yaml:7:") and "maximize" in line for line in lines)
    assert any(line.startswith("broken.yaml:8:1 epocs:") for line in lines)


def test_search_reports_the_same_and_starts_nothing(cli: Cli, broken: str, tmp_path: Path) -> None:
    checked, searched = cli("check", broken), cli("search", broken)
    assert searched.returncode == 2
    assert searched.stderr == checked.stderr
    assert not (tmp_path / "lmoe_runs").exists()


@pytest.mark.slow
def test_check_says_what_a_trial_on_a_gpu_needs_of_its_memory(cli: Cli) -> None:
    done = cli("check", "digits", "--set", "resources.gpu=0.5")
    assert done.returncode == 0, done.stderr
    assert "memory: a trial needs at least" in done.stdout
    assert "rows of its largest step" in done.stdout
    assert "memory:" not in cli("check", "digits").stdout


def test_an_override_is_checked_like_the_file(cli: Cli) -> None:
    done = cli("check", "digits", "--set", "train.lr=-1", "--set", "serach.seed=1")
    assert done.returncode == 2
    assert "train.lr" in done.stderr and "did you mean" in done.stderr


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "spaces/digits.yaml"])
def test_a_shipped_spec_is_found_by_its_stem_and_the_file_is_named(cli: Cli, name: str) -> None:
    done = cli("check", name)
    assert done.returncode == 0, done.stderr
    assert "search_spaces/digits.yaml" in done.stderr
    assert "fine" in done.stdout


def test_the_cars_space_is_found_and_says_which_data_it_looked_for(
    cli: Cli, tmp_path: Path
) -> None:
    for command in ("check", "search"):
        done = cli(command, "spaces/cars.yaml")
        assert done.returncode == 2
        assert "search_spaces/cars.yaml" in done.stderr
        for root in ("data/stanford_cars", "data/webvision", "data/fgvc-aircraft-2013b"):
            assert root in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ methods, schema, doctor


def test_methods_lists_every_parameter_with_its_range_and_default(cli: Cli) -> None:
    rows = json.loads(cli("methods", "--format", "json").stdout)
    by_name = {(row["method"], row["parameter"]): row for row in rows}
    assert by_name["logit_mixoe", "mixing_alpha"]["default"] == 1.0
    assert by_name["logit_mixoe", "consistency"]["range"]
    assert ("baseline", "lr") in by_name
    assert all(row["help"] for row in rows)
    table = cli("methods")
    assert "mixing_alpha" in table.stdout and table.stderr == ""
    found = list(csv.DictReader(io.StringIO(cli("methods", "--format", "csv").stdout)))
    assert len(found) == len(rows)


def test_schema_is_one_json_document(cli: Cli) -> None:
    done = cli("schema")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["properties"]["space"]


@pytest.mark.slow
def test_doctor_looks_at_everything_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor", "--format", "json")
    assert done.returncode == 0, done.stdout
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert {
        "torch",
        "ray",
        "optuna",
        "mlflow",
        "CPU cores",
        "GPUs",
        "home",
        "free space",
        "MLflow",
    } <= set(found)
    assert {row["state"] for row in found.values()} <= {"ok", "warn", "fail"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_doctor_names_an_unfinished_and_a_damaged_sweep(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    sweep("half", 0.9, None)
    damaged = sweep("damaged", 0.9).folder.ledger
    damaged.write_bytes(damaged.read_bytes().replace(b'"sweep"', b'"sweeq"', 1))
    done = cli("doctor", "--format", "json")
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert found["sweep half"]["advice"] == "lmoe-tune resume half"
    assert found["sweep damaged"]["state"] == "fail"
    assert "1 trials with 1 epochs can be rebuilt" in found["sweep damaged"]["found"]
    assert found["sweep damaged"]["advice"] == "lmoe-tune doctor --rebuild damaged"
    assert done.returncode == 1


def test_a_sweep_that_was_copied_in_its_home_is_named_and_does_not_continue(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    original = sweep("original", 0.9, None).folder
    copy = original.path.with_name("copy")
    shutil.copytree(original.path, copy)

    rows = {row["what"]: row for row in doctor._sweeps(original.home)}

    assert rows["sweep original"]["state"] == "ok"
    assert rows["sweep copy"]["state"] == "warn"
    assert "a copy of 'original'" in rows["sweep copy"]["found"]
    assert f"move {copy} out of this home" in rows["sweep copy"]["advice"]
    for command in ("resume", "sync"):
        done = cli(command, "copy")
        assert (done.returncode, "a copy of 'original'" in done.stderr) == (2, True)

    shutil.rmtree(original.path)
    (row,) = doctor._sweeps(original.home)
    assert (row["what"], row["state"]) == ("sweep copy", "ok"), "as if it had been renamed"


@pytest.mark.slow
def test_doctor_looks_at_the_caches_of_a_spec_and_of_the_sweeps(
    cli: Cli, sweep: Callable[..., Ledger], tmp_path: Path
) -> None:
    sweep("one", 0.9, more=["data.cache_dir=/proc/none"])
    (tmp_path / "mine.yaml").write_text(
        "data: {id: {dataset: digits}, cache_dir: fast}\n", encoding="utf-8"
    )

    done = cli("doctor", "mine.yaml", "--format", "json")

    found = {
        row["found"].partition(":")[0]: row["state"]
        for row in json.loads(done.stdout)
        if row["what"] == "data.cache_dir"
    }
    assert found.pop("/proc/none") == "fail" and done.returncode == 1
    ((text, state),) = found.items()
    assert text.endswith(str(tmp_path / "fast")) and state in ("ok", "warn")


def test_doctor_shows_decoded_images_whose_they_are_and_how_to_free_them(
    sweep: Callable[..., Ledger], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {id: {dataset: folder, root: a}, outliers: {dataset: folder, root: b}}\n"
        "space: {mixing_alpha: {low: 0.1, high: 1}}\n",
        encoding="utf-8",
    )
    spec = load_spec(path, declarations=declarations()).spec
    ledger = sweep("cars", 0.9)
    home = ledger.folder.home
    assert doctor._caches(home, spec) == [], "nothing is decoded yet"
    segment = home / "cache" / "512px-pil" / "segment-1"
    segment.mkdir(parents=True)
    (segment / "pixels").write_bytes(b"x" * 40_960)

    (row,) = doctor._caches(home, None)
    assert row["found"].endswith(f"kB in {home}/cache, of no sweep that is still in the home")
    assert f"rm -r {home}/cache/*px-*" in row["advice"]

    ledger.folder.spec.unlink()
    write_records(ledger.folder, resolve_platform(spec))
    (row,) = doctor._caches(home, spec)
    assert row["found"].endswith(", of the sweep cars, the spec mine")
    assert (row["state"], row["what"]) == ("ok", "decoded images")


def test_doctor_rebuilds_a_damaged_ledger_and_leaves_a_whole_one_alone(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    damaged = sweep("damaged", 0.9, None).folder.ledger
    damaged.write_bytes(damaged.read_bytes().replace(b'"sweep"', b'"sweeq"', 1))
    refused = cli("status", "damaged")
    assert refused.returncode == 1
    assert "doctor" in refused.stderr
    done = cli("doctor", "--rebuild", "damaged")
    assert done.returncode == 0, done.stderr
    assert "2 trials with 1 epochs" in done.stdout
    assert json.loads(cli("leaderboard", "damaged", "--format", "json").stdout)[0]["value"] == 0.9
    again = cli("doctor", "--rebuild", "damaged")
    assert again.returncode == 2
    assert "nothing to rebuild" in again.stderr
    assert "did you mean 'damaged'?" in cli("doctor", "--rebuild", "damagde").stderr
    assert cli("doctor", "--rebuild", "none").returncode == 2
    damaged.with_name("spec.yaml").unlink()
    assert "spec.yaml is gone: put it back" in cli("doctor", "--rebuild", "damaged").stderr
    assert cli("doctor", "--rebuild", "../sweeps/damaged").returncode == 2


# ------------------------------------------------------------------ looking


def test_list_shows_all_sweeps_the_last_one_first(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    assert cli("list").stdout == ""
    assert json.loads(cli("list", "--format", "json").stdout) == []
    sweep("first", 0.8, 0.9, trials=2)
    sweep("second", 0.7, None)
    rows = json.loads(cli("list", "--format", "json").stdout)
    assert [(row["sweep"], row["state"]) for row in rows] == [
        ("second", "interrupted"),
        ("first", "complete"),
    ]
    assert rows[1] == json.loads(cli("status", "first", "--format", "json").stdout)
    assert (rows[1]["best"]["trial"], rows[1]["best"]["value"]) == (1, 0.9)
    started = datetime.fromisoformat(rows[1]["started"])
    assert started.tzinfo is not None

    heading, _, first = cli("list").stdout.splitlines()
    assert heading.split()[-3:] == ["best_trial", "best_value", "started"]
    assert first.endswith(started.replace(tzinfo=None).isoformat(" ", "minutes"))
    assert [
        row["sweep"] for row in csv.DictReader(io.StringIO(cli("list", "--format", "csv").stdout))
    ] == [
        "second",
        "first",
    ]


def test_a_damaged_sweep_does_not_hide_the_others(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    sweep("good", 0.9)
    damaged = sweep("bad", 0.9).folder.ledger
    damaged.write_bytes(damaged.read_bytes().replace(b'"sweep"', b'"sweeq"', 1))
    done = cli("list", "--format", "json")
    assert done.returncode == 0
    assert {row["sweep"]: row["state"] for row in json.loads(done.stdout)} == {
        "good": "interrupted",
        "bad": "damaged",
    }
    assert "damaged at line 1" in done.stderr
    (damaged.parent / "spec.yaml").unlink()
    assert cli("list").returncode == 0


def test_status_holds_what_the_contract_promises(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    sweep("small", 0.8, 0.9, None)
    done = cli("status", "small", "--format", "json")
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    promised = {
        "sweep",
        "state",
        "trials",
        "best",
        "tracking_uri",
        "experiment_id",
        "parent_run_id",
        "wall_s",
    }
    assert promised <= set(found)
    assert found["trials"] == {"planned": 8, "complete": 2, "pruned": 0, "failed": 0, "running": 1}
    assert {"trial", "value", "params"} <= set(found["best"])
    assert "small" in cli("status", "small").stdout
    assert (
        len(list(csv.DictReader(io.StringIO(cli("status", "small", "--format", "csv").stdout))))
        == 1
    )


def test_a_trial_of_an_interrupted_sweep_is_not_called_running(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    ledger = sweep("half", 0.9, None)
    assert ["interrupted", "1"] in [
        line.split() for line in cli("status", "half").stdout.splitlines()
    ]
    shown = cli("status", "half").stdout + cli("leaderboard", "half").stdout + cli("list").stdout
    assert "running" not in shown
    assert [row.split()[:2] for row in cli("leaderboard", "half").stdout.splitlines()[1:]] == [
        ["0", "complete"],
        ["1", "interrupted"],
    ]
    assert (
        json.loads(cli("leaderboard", "half", "--format", "json").stdout)[1]["state"] == "running"
    )
    with ledger.folder.locked():
        assert "running" in cli("leaderboard", "half").stdout


def test_a_uri_is_shown_without_its_password(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    sweep("small", 0.8)
    done = cli(
        "status", "small", "--format", "json", MLFLOW_TRACKING_URI="https://me:secret@host:5000/x"
    )
    assert json.loads(done.stdout)["tracking_uri"].startswith("https://")
    assert "secret" not in done.stdout + done.stderr
    assert "host:5000" in done.stdout


def test_the_leaderboard_is_sorted_and_best_is_its_first_row(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    sweep("small", 0.8, 0.9, 0.7, None)
    rows = json.loads(cli("leaderboard", "small", "--format", "json").stdout)
    assert [row["trial"] for row in rows] == [1, 0, 2, 3]
    assert {"trial", "state", "value", "params", "metrics", "epochs", "run_id"} <= set(rows[0])
    best = json.loads(cli("best", "small", "--format", "json").stdout)
    assert (best["trial"], best["value"]) == (1, 0.9)
    assert "0.9" in cli("best", "small").stdout
    table = cli("leaderboard", "small").stdout.splitlines()
    assert len(table) == 5 and "mixing_alpha" in table[0]


def test_best_without_a_complete_trial_says_so(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    sweep("small", None)
    done = cli("best", "small", "--format", "json")
    assert done.returncode == 2
    assert "no complete trial" in done.stderr and done.stdout == ""


def test_where_every_trial_failed_the_next_step_is_to_see_why_and_to_try_them_again(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    ledger = sweep("small", None, None, trials=2)
    for number in (0, 1):
        ledger.fail(number, "ValueError: a slip")
    done = cli("resume", "small")
    assert (
        "next: lmoe-tune leaderboard small | lmoe-tune resume small --retry-failed\n" in done.stdout
    )


def test_the_home_may_stand_before_or_after_the_command_or_in_the_environment(
    cli: Cli, sweep: Callable[..., Ledger], tmp_path: Path
) -> None:
    sweep("small", 0.8)
    (tmp_path / "lmoe_runs").rename(tmp_path / "elsewhere")
    assert json.loads(cli("list", "--format", "json").stdout) == []
    for done in (
        cli("list", "--format", "json", "--home", "elsewhere"),
        cli("--home", "elsewhere", "list", "--format", "json"),
        cli("list", "--format", "json", LMOE_TUNE_HOME="elsewhere"),
    ):
        assert [row["sweep"] for row in json.loads(done.stdout)] == ["small"]


# ------------------------------------------------------------------ what starts nothing


def test_a_dry_run_starts_nothing_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("search", "digits", "--dry-run", "--json", "--trials", "5", "--set", "search.seed=3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] == 5
    assert found["slots"] >= 1
    assert len(found["configurations"]) == 5
    assert found["configurations"][0] == {
        "mixing_alpha": 1.0,
        "consistency_weight": 1.0,
        "outlier_ratio": 1.0,
    }
    assert found["cost"]
    assert list(tmp_path.iterdir()) == []
    text = cli("search", "digits", "--dry-run")
    assert len(text.stderr.splitlines()) == 1, "which file it took"
    assert text.returncode == 0 and "slots" in text.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_more_than_the_machine_has_is_refused(cli: Cli) -> None:
    done = cli("search", "digits", "--dry-run", "--set", "resources.cpu=100000")
    assert done.returncode == 2
    assert "resources" in done.stderr


def test_a_complete_sweep_is_not_started_again(cli: Cli, sweep: Callable[..., Ledger]) -> None:
    ledger = sweep("digits", 0.8, 0.9, trials=2)
    trials = ledger.trials()
    done = cli("resume", "digits", "--json")  # delivers what MLflow does not have
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    size = ledger.folder.ledger.stat().st_size
    again = cli("resume", "digits", "--json")
    assert again.returncode == 0, again.stderr
    assert ledger.folder.ledger.stat().st_size == size, (
        "the second time there is nothing left to do"
    )
    assert read_sweep(ledger.folder).trials() == trials


# ------------------------------------------------------------------ train


@pytest.mark.slow
def test_train_runs_one_trial_and_prints_one_json_document(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "mixing_alpha: 2.0\nconsistency_weight: 1e-1\n", encoding="utf-8"
    )
    small = ("--set", "train.epochs=1", "--set", "model.baseline.epochs=1")
    done = cli("train", "digits", *small, "--params", "p.yaml", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["epochs"] == 1
    assert found["params"]["mixing_alpha"] == 2.0 and found["params"]["consistency_weight"] == 0.1
    assert 0 <= found["metrics"]["val_auroc"] <= 1
    assert Path(found["checkpoint"]).is_file()
    assert "epoch 1/1" in done.stderr
    again = cli("train", "digits", *small, "--params", "p.yaml", "--json")
    assert json.loads(again.stdout) == found, "it is finished already"


@pytest.mark.slow
def test_a_parameter_that_the_method_lacks_is_refused_by_train(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("mixing_alfa: 2.0\n", encoding="utf-8")
    done = cli("train", "digits", "--params", "p.yaml")
    assert done.returncode == 2
    assert "p.yaml:1:1 mixing_alfa" in done.stderr and "mixing_alpha" in done.stderr
    assert not (tmp_path / "lmoe_runs").exists()


def test_an_audit_says_that_all_is_as_recorded_and_prints_one_hash(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    sweep("good", 0.9, 0.8)
    done = cli("audit", "good")
    assert done.returncode == 0, done.stderr
    assert "all as recorded" in done.stdout
    found = json.loads(cli("audit", "good", "--format", "json").stdout)
    assert found["same"] is True and found["differences"] == []
    assert f"sha256  {found['digest']}" in done.stdout


def test_a_status_that_is_watched_ends_where_nobody_works_on_the_sweep(
    cli: Cli, sweep: Callable[..., Ledger]
) -> None:
    sweep("half", 0.9, None)
    done = cli("status", "half", "--watch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "state interrupted, complete 1, pruned 0, failed 0, interrupted 1"
    )
    assert len(done.stdout.splitlines()) == 1
    assert cli("status", "half", "--watch", "--format", "json").returncode == 2


def test_an_interrupted_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typer turns the interrupt into an exit without a word."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmoe_tune.list_sweeps", interrupted)
    assert run(["list", "--home", str(tmp_path)]) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err


def test_stdout_on_a_full_disk_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lmoe_tune.cli.main", "methods"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: stdout cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9 (Connection refused): start one"),
        ("http://x:8265", "--address is 'http://x:8265', but must be HOST:PORT"),
        ("cluster", "--address is 'cluster', but must be HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, said: str
) -> None:
    home = tmp_path / "home"
    assert run(["search", "digits", "--home", str(home), "--address", address]) == 2
    assert said in capsys.readouterr().err
    assert not home.exists()


def test_what_was_said_about_an_interrupt_is_said_once() -> None:
    def told() -> BaseException:
        try:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise typer.Exit(130) from None
        except typer.Exit as exit_:
            return exit_

    assert _cause(told(), KeyboardInterrupt) is None


def test_a_file_that_ends_too_early_is_no_silent_abort(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end_too_early(*_: object, **__: object) -> None:
        raise EOFError("no data left in file")

    monkeypatch.setattr(lmoe_tune, "list_sweeps", end_too_early, raising=False)
    assert run(["list"]) == 1
    assert "error: EOFError: no data left in file" in capsys.readouterr().err


def test_doctor_names_a_setting_that_ray_cannot_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmoe_tune.cli.main", "doctor", "--home", str(tmp_path)],
        env={**os.environ, "RAY_memory_usage_threshold": "95%"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert "RAY_memory_usage_threshold is '95%', which Ray cannot read" in done.stdout


def test_a_setting_that_ray_cannot_read_is_named(tmp_path: Path) -> None:
    """Ray's core would end the process with a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-m", "lmoe_tune.cli.main", "search", "digits", "--home", str(tmp_path / "home")],
        env={**os.environ, "RAY_num_workers_soft_limit": "4", "RAY_memory_usage_threshold": "95%"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "RAY_memory_usage_threshold is '95%', which Ray cannot read" in done.stderr
    assert not (tmp_path / "home").exists()
