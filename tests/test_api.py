"""What `import lmoe_tune` offers. What starts Ray is in end_to_end/test_api.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lmoe_tune as lt
from lmoe_tune.api import running
from lmoe_tune.spec import resolved_yaml, spec_from_resolved
from lmoe_tune.sweep.budget import change_of
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.settings import RunSettings
from lmoe_tune.training.platform import resolve_platform
from tests.conftest import MakeSpec

HEAVY = ("torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "pydantic", "typer", "rich")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    return done.stdout


def test_importing_the_package_imports_nothing_with_it() -> None:
    code = f"import sys, lmoe_tune; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == "[]\n"


def test_reading_a_spec_takes_neither_torch_nor_ray() -> None:
    code = (
        "import sys, lmoe_tune as lt\n"
        "spec = lt.load_spec('digits', ['train.epochs=5'])\n"
        "print(spec.spec.train.epochs, [n for n in ('torch', 'ray', 'optuna') if n in sys.modules])"
    )
    assert run(code) == "5 []\n"


def test_every_name_that_is_offered_is_there() -> None:
    for name in lt.__all__:
        assert getattr(lt, name) is not None, name
        assert name in dir(lt)


def test_what_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lmoe_tune' has no attribute 'serach'"):
        _ = lt.serach  # type: ignore[attr-defined]


def test_every_problem_of_a_spec_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # else the place is named as seen from where the tests run
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntrainable: nosuch\nspace: {}\n", encoding="utf-8")
    with pytest.raises(lt.SpecError) as caught:
        lt.load_spec(path)
    assert any(problem.where == "mine.yaml:2:12" for problem in caught.value.problems)


def test_a_sweep_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(lt.UsageError, match="no sweep 'digits'"):
        lt.open_sweep("digits", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "a b"}, "name"),
        ({"time": "soon"}, "time is 'soon', but must be a duration"),
        ({"wait_for_lock": "a while"}, "wait_for_lock is 'a while', but must be a duration"),
        ({"wait_for_lock": []}, "wait_for_lock is an empty list, but must be a duration"),
        ({"wait_for_lock": -3}, "wait_for_lock is -3, but must be a duration"),
        ({"wait_for_lock": True}, "wait_for_lock is true, but must be a duration"),
        ({"trials": "9" * 5000}, "trials is '9999.{,80}', but must be"),
        ({"gpu_hours": "1e999"}, r"gpu_hours is '1e999', but must be \+N"),
        ({"tracking_uri": "http://ann:pw@host"}, "tracking_uri must not hold a password"),
        ({"tracking_uri": ""}, "tracking_uri: value is '', but must be text"),
        ({"tracking_uri": "mlruns"}, "tracking_uri: value is 'mlruns', but must be a URI"),
        ({"tracking_uri": f"sqlite:////tmp/{'x' * 600}"}, "tracking_uri: value is 'sqlite:"),
        ({"tracking_uri": Path("x")}, "tracking_uri is .*, but must be a text or None"),
        ({"name": 3}, "name is 3, but must be a text or None"),
        ({"overrides": "train.epochs=1"}, "overrides is 'train.epochs=1', but must be a list"),
        ({"overrides": ["train.epochs=1", 3]}, r"overrides\[1\] is 3, but must be a text"),
        ({"observer": print}, "observer is .*, but must be an Observer or None"),
        ({"stop": 5}, "stop is 5, but must be an Event or None"),
        ({"leave": 5}, "leave is 5, but must be a function or None"),
        ({"address": 5}, "address is 5, but must be a text or None"),
    ],
)
def test_a_wrong_argument_of_search_is_named_before_anything_is_made(
    arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(lt.UsageError, match=said):
        lt.search("digits", home=tmp_path / "home", **arguments)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lt.load_spec(3), "spec is 3, but must be a text or a path"),
        (lambda: lt.load_spec("digits", None), "overrides is None, but must be a list"),
        (lambda: lt.open_sweep(Path("x")), "name is .*, but must be a text"),
        (lambda: lt.compare([]), "compare needs at least one sweep"),
        (lambda: lt.compare(["a"]), r"sweeps\[0\] is 'a', but must be a Sweep"),
        (lambda: lt.confirm("digits"), "sweep is 'digits', but must be what `open_sweep`"),
        (lambda: lt.train("digits", [1]), r"params is \[1\], but must be a mapping"),
        (lambda: lt.load_detector(None), "folder is None, but must be a text or a path"),
        (lambda: lt.list_sweeps(5), "home is 5, but must be a text or a path"),
        (lambda: lt.list_sweeps(observer=print), "observer is .*, but must be an Observer"),
        (lambda: lt.inspect_data("digits", observer=print), "observer is .*, but must be"),
        (lambda: lt.train("digits", observer=lt.Observer), "observer is .*, but must be"),
        (
            lambda: lt.search(lt.load_spec("digits"), overrides=["train.lr=1"]),
            "overrides go with a spec that is not loaded yet",
        ),
        (lambda: lt.train("digits", {"lr": 10**400}), "lr: value is 1000"),
        (lambda: lt.train("digits", {3: 1}), r"names of params\[0\] is 3, but must be a text"),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(lt.UsageError, match=said):
        call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda sweep: sweep.sync(5), "tracking_uri is 5, but must be a text or None"),
        (lambda sweep: sweep.sync(observer=print), "observer is .*, but must be an Observer"),
        (lambda sweep: sweep.deliver_report(5), "tracking_uri is 5, but must be a text or None"),
        (lambda sweep: sweep.export(None), "out is None, but must be a text or a path"),
        (lambda sweep: sweep.export("x", register=5), "register is 5, but must be a text or None"),
        (lambda sweep: sweep.export("x", trial="0"), "trial is '0', but must be a whole number"),
        (lambda sweep: sweep.checkpoint("0"), "trial is '0', but must be a whole number"),
        (lambda sweep: sweep.prune_checkpoints("x"), "keep is 'x', but must be a whole number or"),
        (lambda sweep: sweep.prune_checkpoints(-1), "keep is -1, but must be at least 0"),
        (lambda sweep: sweep.resume(observer=print), "observer is .*, but must be an Observer"),
        (lambda sweep: lt.confirm(sweep, address=5), "address is 5, but must be a text or None"),
        (lambda sweep: lt.confirm(sweep, seeds=2.5), "seeds is 2.5, but must be a whole number"),
    ],
)
def test_a_wrong_argument_of_a_sweep_is_named(
    call: Callable[[lt.Sweep], object], said: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    folder, spec = SweepFolder(tmp_path, "digits"), make_spec()
    write_records(folder, spec)
    Ledger.writing(folder, spec)
    with pytest.raises(lt.UsageError, match=said):
        call(lt.open_sweep("digits", tmp_path))


def test_a_sweep_without_its_spec_says_what_is_gone_or_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "old"
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").touch()
    with pytest.raises(lt.UsageError, match=r"old/spec\.yaml is gone: put it back"):
        lt.open_sweep("old", tmp_path)
    (folder / "spec.yaml").write_text("name: [1", encoding="utf-8")
    with pytest.raises(lt.UsageError, match=r"old/spec\.yaml: the recorded spec:.*not valid YAML"):
        lt.open_sweep("old", tmp_path)


def test_a_loaded_spec_keeps_its_folder_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")
    loaded = lt.load_spec("mine.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert loaded.path == tmp_path / "mine.yaml"
    assert loaded.folder == tmp_path.resolve()


def test_a_term_of_ones_own_may_be_the_objective(tmp_path: Path) -> None:
    (tmp_path / "own_terms.py").write_text(
        "import lmoe_tune as lt\n"
        "class M(lt.Method):\n"
        "    declaration = lt.Declaration('m', 's', (), False, terms=(lt.Term('margin_loss'),))\n"
        "    def loss(self, model, batch, draws, params): ...\n",
        encoding="utf-8",
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        "trainable: own_terms:M\ndata: {id: {dataset: digits}}\nspace: {lr: {low: 0.1, high: 1}}\n"
        "objective: {metric: train_margin_loss, constraints: {train_margin_loss: {max: 3}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(lt.SpecError, match="train_margin_loss is your method's own: say its dir"):
        lt.load_spec(path)

    spec = lt.load_spec(path, ["objective.direction=minimize"]).spec
    assert (spec.objective.metric, spec.objective.direction) == ("train_margin_loss", "minimize")
    assert spec_from_resolved(resolved_yaml(spec)) == spec
    with pytest.raises(lt.SpecError, match="own_terms:M never gives train_mix_loss"):
        lt.load_spec(path, ["objective.metric=train_mix_loss"])


def test_a_sweep_that_has_not_begun_is_not_resumed(make_spec: MakeSpec, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "digits")
    folder.path.mkdir(parents=True)
    write_records(folder, make_spec())
    folder.ledger.touch()
    with pytest.raises(lt.UsageError, match="interrupted before it had begun: start it again"):
        running.resume(folder, change_of(), RunSettings())


def test_a_budget_that_a_new_sweep_is_given_counts_once(tmp_path: Path) -> None:
    loaded = lt.load_spec("digits", ["budget.trials=3"])
    change = change_of(trials="+2")
    run = running._Run(
        SweepFolder(tmp_path, "digits"),
        resolve_platform(loaded.spec),
        change,
        RunSettings(),
        tmp_path,
    )
    ledger, _ = run._take_up()
    assert ledger.budget.trials == 5


@pytest.mark.slow
def test_a_trial_leaves_the_users_process_as_it_was_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import torch

    from lmoe_tune.methods.objective import StepLoss
    from lmoe_tune.training import loop

    spec = lt.load_spec(
        "digits", ["train.epochs=3", "model.baseline.epochs=1", "resources.epoch_timeout=0.001"]
    )
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    threads = torch.get_num_threads() + 1
    request.addfinalizer(lambda: setattr(matmul, "allow_tf32", False))
    request.addfinalizer(lambda: torch.set_num_threads(threads - 1))
    torch.set_num_threads(threads)
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    matmul.fp32_precision = "tf32"  # after which allow_tf32 cannot be read
    during = list[tuple[int, bool]]()
    train_step = loop.checked

    def noted(loss: StepLoss) -> StepLoss:
        during.append((torch.get_num_threads(), cudnn.deterministic))
        return train_step(loss)

    monkeypatch.setattr(loop, "checked", noted)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    observer, said = lt.Observer(), list[str]()
    observer.on_message = said.append  # type: ignore[method-assign]
    first = lt.train(spec, home=tmp_path, observer=observer)
    epochs = iter(first)
    assert next(epochs).epoch == 1
    assert any("resources.epoch_timeout is ignored here" in text for text in said)
    epochs.close()  # type: ignore[attr-defined]
    again = lt.train(spec, home=tmp_path)
    assert [epoch.epoch for epoch in again] == [2, 3]
    assert sorted(again.epochs) == [1, 2, 3]
    assert [epoch.epoch for epoch in lt.train(spec, home=tmp_path)] == []

    assert torch.equal(torch.rand(1), expected)
    assert set(during) == {(1, True)}, "every epoch has the trial's own settings"
    assert torch.get_num_threads() == threads
    assert not cudnn.deterministic and cudnn.allow_tf32
    assert matmul.fp32_precision == "tf32"


@pytest.mark.slow
def test_a_trial_of_other_code_is_another_one(tmp_path: Path) -> None:
    own = tmp_path / "my_own.py"
    text = (
        "from trainables.logit_mixoe import LogitMixOE\n"
        "class Mine(LogitMixOE):\n"
        "    note = 'first'\n"
    )
    own.write_text(text, encoding="utf-8")
    spec = tmp_path / "mine.yaml"
    spec.write_text(
        "name: mine\ntrainable: my_own:Mine\ndata: {id: {dataset: digits}}\n"
        "model: {baseline: {epochs: 1}}\ntrain: {epochs: 1}\n"
        "space: {mixing_alpha: {low: 0.1, high: 10}}\n",
        encoding="utf-8",
    )
    first = lt.train(spec, home=tmp_path / "home")
    assert [epoch.epoch for epoch in first] == [1]
    assert lt.train(spec, home=tmp_path / "home").num_epochs == 1
    own.write_text(text.replace("first", "another"), encoding="utf-8")
    other = lt.train(spec, home=tmp_path / "home")
    assert other.num_epochs == 0, "what the old code gave is no result of the new"
    (first.folder / "metrics.jsonl").write_text("{", encoding="utf-8")
    own.write_text(text, encoding="utf-8")
    with pytest.raises(lt.UsageError, match=r"metrics\.jsonl: is damaged; remove"):
        lt.train(spec, home=tmp_path / "home")


@pytest.mark.slow
def test_one_trial_is_an_iterator_over_its_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = lt.load_spec("digits", ["train.epochs=2", "model.baseline.epochs=1"])
    trial = lt.train(spec, {"mixing_alpha": 0.5}, home=tmp_path)
    assert [epoch.epoch for epoch in trial] == [1, 2]
    assert trial.params["mixing_alpha"] == 0.5
    assert trial.num_epochs == 2
    assert "val_auroc" in trial.metrics
    assert trial.checkpoint is not None

    again = lt.train(spec, {"mixing_alpha": 0.5}, home=tmp_path)
    assert again.metrics == trial.metrics, "it reads what was recorded before it trains"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
