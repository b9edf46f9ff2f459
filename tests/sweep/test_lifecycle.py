from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from lmoe_tune.api.sweeps import latest_sweep
from lmoe_tune.data import decoded_cache, inspection
from lmoe_tune.data.inspection import inspect
from lmoe_tune.data.usable_images import Finding
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Dataset, DataSpec, LoadedSpec, Spec, spec_from_resolved
from lmoe_tune.sweep import folder as folder_module
from lmoe_tune.sweep import lifecycle
from lmoe_tune.sweep.budget import Amount, Budget, BudgetChange
from lmoe_tune.sweep.folder import SweepFolder, SweepLockedError, find_sweep, find_sweeps
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, prepare, settle, write_records
from lmoe_tune.sweep.rebuild import write_about

MakeSpec = Callable[..., Spec]


def loaded(spec: Spec) -> LoadedSpec:
    return LoadedSpec(spec, Path("small.yaml"))


def begin(
    folder: SweepFolder,
    spec: Spec,
    change: BudgetChange | None = None,
    *,
    fresh: bool = False,
    allow_changes: bool = False,
    import_path: Path = Path("/specs"),
) -> Ledger:
    """What a command does before the first trial."""
    prepared = prepare(folder, loaded(spec), fresh=fresh, allow_changes=allow_changes)
    ready, sources = prepared.spec, prepared.sources
    first = first_attrs(ready, change or BudgetChange(), import_path, folder.home, sources)
    if not folder.exists():
        write_records(folder, ready)
    ledger = Ledger.writing(folder, ready, first)
    settle(
        ledger,
        change or BudgetChange(),
        spec_budget=Budget.of(ready),
        import_path=import_path,
        spec_changes=prepared.changes,
        allow_changes=allow_changes,
    )
    write_records(folder, ready)
    return ledger


def resume(folder: SweepFolder, change: BudgetChange | None = None) -> Ledger:
    ledger = Ledger.writing(folder, spec_from_resolved(folder.spec.read_text(encoding="utf-8")))
    settle(ledger, change or BudgetChange(), spec_budget=None, import_path=Path("/specs"))
    return ledger


def test_what_is_automatic_is_decided_at_the_start_and_frozen(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec("search.seed=7"))
    frozen = spec_from_resolved(folder.spec.read_text(encoding="utf-8")).train
    assert frozen.device == "cpu"
    assert frozen.precision in ("fp32", "bf16")
    assert (frozen.threads, frozen.seed) == (1, 7)
    again = prepare(folder, loaded(spec("search.seed=7")), fresh=False).spec
    assert again.train == frozen


def test_other_resources_do_not_change_the_frozen_threads(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec("resources.cpu=1"))
    again = prepare(folder, loaded(spec("resources.cpu=4")), fresh=False).spec
    assert again.resources.cpu == 4
    assert again.train.threads == 1


def test_a_changed_spec_is_refused_with_a_line_per_difference(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec())
    before = folder.spec.read_text(encoding="utf-8")
    changed = spec("train.lr=0.5", "search.seed=3", "space.mixing_alpha.high=5")
    with pytest.raises(UsageError) as raised:
        prepare(folder, loaded(changed), fresh=False)
    lines = str(raised.value).splitlines()
    assert "  train.lr: 0.01 -> 0.5" in lines
    assert "  search.seed: 0 -> 3" in lines
    assert any(line.startswith("  space.mixing_alpha.high: ") for line in lines)
    assert "--name" in lines[-1] and "--fresh" in lines[-1]
    assert folder.spec.read_text(encoding="utf-8") == before


def test_budget_resources_and_tracking_may_change_and_are_recorded(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec())
    ledger = begin(
        folder, spec("budget.trials=20", "resources.max_retries=1", "tracking.experiment=other")
    )
    assert ledger.budget.trials == 20
    frozen = spec_from_resolved(folder.spec.read_text(encoding="utf-8"))
    assert frozen.resources.max_retries == 1
    assert frozen.tracking.experiment == "other"


def test_fresh_starts_anew_and_keeps_the_old_sweep_aside(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    old = begin(folder, spec())
    old.ask()
    new = begin(folder, spec("train.lr=0.5"), fresh=True)
    assert new.trials() == []
    assert new.sweep_id != old.sweep_id
    aside = [path for path in folder.path.parent.iterdir() if path != folder.path]
    assert len(aside) == 1
    assert aside[0].name.startswith("small.")
    kept = SweepFolder(folder.home, aside[0].name)
    assert len(Ledger.reading(kept, old.spec).trials()) == 1


def test_fresh_twice_within_a_second_keeps_both(folder: SweepFolder, spec: MakeSpec) -> None:
    for _ in range(3):
        begin(folder, spec(), fresh=True)
    assert len(list(folder.path.parent.iterdir())) == 3


def test_what_fresh_has_put_aside_and_what_never_began_are_only_taken_up_by_name(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec()).ask()
    assert latest_sweep(folder.home, unfinished=True) == folder
    begin(folder, spec(), fresh=True)
    assert not folder.is_set_aside
    (aside,) = [other for other in find_sweeps(folder.home) if other != folder]
    assert aside.is_set_aside
    assert latest_sweep(folder.home, unfinished=True) == folder, "there is nothing else"
    begun = SweepFolder(folder.home, "begun")
    begin(begun, spec()).ask()
    later = begun.ledger.stat().st_mtime_ns + 10**9
    os.utime(folder.ledger, ns=(later, later))
    assert find_sweeps(folder.home)[0] == folder
    assert latest_sweep(folder.home, unfinished=True) == begun, "the other one has no trial yet"
    assert latest_sweep(folder.home, unfinished=False) == folder
    broken = SweepFolder(folder.home, "broken")
    shutil.copytree(begun.path, broken.path)
    broken.ledger.write_bytes(b"\n".join(reversed(begun.ledger.read_bytes().split(b"\n"))))
    assert latest_sweep(folder.home, unfinished=True) == begun


def test_fresh_without_an_old_sweep_is_a_start(tmp_path: Path, spec: MakeSpec) -> None:
    folder = SweepFolder(tmp_path / "other", "small")
    assert begin(folder, spec(), fresh=True).trials() == []
    assert [path.name for path in folder.path.parent.iterdir()] == ["small"]


def test_fresh_does_not_touch_a_sweep_that_is_worked_on(
    folder: SweepFolder, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE_S", 0.05)
    begin(folder, spec())
    with folder.locked(), pytest.raises(SweepLockedError):
        prepare(folder, loaded(spec()), fresh=True)
    assert folder.exists()


def test_a_sweep_whose_data_cannot_be_read_is_not_begun(
    tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("data.id: no images")

    monkeypatch.setattr(lifecycle, "refuse_unsound", refuse)
    folder = SweepFolder(tmp_path / "other", "small")
    with pytest.raises(UsageError, match="no images"):
        prepare(folder, loaded(spec()), fresh=False)
    assert not folder.path.exists()


def test_what_is_odd_about_the_data_is_said_when_a_sweep_begins_and_not_again(
    tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Finding("data.outliers.exclude", "'owel' matches nothing", "write 'owl'", stops=False)
    sound = inspect(spec().data, tmp_path)
    found = replace(sound, problems=(odd,))
    monkeypatch.setattr(inspection, "inspect", lambda data, home, say: found)
    folder, said = SweepFolder(tmp_path / "other", "small"), list[str]()

    prepare(folder, loaded(spec()), fresh=False, warn=said.append)
    begin(folder, spec())
    prepare(folder, loaded(spec()), fresh=False, warn=said.append)

    assert said == [f"warning: {odd}"]


def test_the_environment_is_described_and_holds_no_secret(
    folder: SweepFolder, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    begin(folder, spec())
    found = json.loads(folder.environment.read_text(encoding="utf-8"))
    assert {"torch", "ray", "optuna", "mlflow"} <= set(found["packages"])
    assert {"python", "platform", "git_commit", "data"} <= set(found)
    for path in folder.path.rglob("*"):
        assert not path.is_file() or "secret" not in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------ budgets


@pytest.mark.parametrize(
    ("change", "trials"),
    [
        (BudgetChange(), 10),
        (BudgetChange(trials=Amount(24)), 24),
        (BudgetChange(trials=Amount(more=8)), 18),
        (BudgetChange(trials=Amount(24, more=8)), 32),
    ],
)
def test_a_budget_is_set_or_extended(change: BudgetChange, trials: int) -> None:
    changed = change.applied(Budget(10, 60.0, None, 3))
    assert changed == Budget(trials, 60.0, None, 3)


def test_time_and_gpu_hours_are_replaced() -> None:
    changed = BudgetChange(time_s=Amount(90.0), gpu_hours=Amount(2.0)).applied(
        Budget(10, 60.0, 1.0, 3)
    )
    assert changed == Budget(10, 90.0, 2.0, 3)


def test_an_extension_stays_when_the_same_spec_is_given_again(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec("budget.trials=10"))
    assert resume(folder, BudgetChange(trials=Amount(more=2))).budget.trials == 12
    assert begin(folder, spec("budget.trials=10")).budget.trials == 12
    assert resume(folder).budget.trials == 12
    assert begin(folder, spec("budget.trials=15")).budget.trials == 15, (
        "a new number in the spec holds"
    )


def test_a_number_on_the_command_line_outlasts_the_command(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec("budget.trials=10"), BudgetChange(trials=Amount(4)))
    assert resume(folder).budget.trials == 4
    assert begin(folder, spec("budget.trials=10")).budget.trials == 4


def test_a_lower_number_than_have_started_does_not_take_them_back(
    folder: SweepFolder, spec: MakeSpec, run_trial: Callable[..., Any]
) -> None:
    ledger = begin(folder, spec("budget.trials=3"))
    for _ in range(3):
        run_trial(ledger)
    assert begin(folder, spec("budget.trials=3"), BudgetChange(trials=Amount(2))).budget.trials == 3
    assert resume(folder, BudgetChange(trials=Amount(more=2))).budget.trials == 5, (
        "two more than there are"
    )


def test_more_trials_of_a_sweep_bounded_by_time_alone_are_on_top_of_those_there_are(
    folder: SweepFolder, spec: MakeSpec, run_trial: Callable[..., Any]
) -> None:
    ledger = begin(folder, spec("budget.trials=null", "budget.time=1h"))
    for _ in range(3):
        run_trial(ledger)
    assert resume(folder, BudgetChange(trials=Amount(more=2))).budget.trials == 5


def test_the_baseline_that_the_trials_start_from_is_recorded(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    assert len(begin(folder, spec()).attrs["baseline"]) == 16


def test_a_sweep_killed_in_its_first_moment_is_resumed(folder: SweepFolder, spec: MakeSpec) -> None:
    ready = prepare(folder, loaded(spec()), fresh=False).spec
    write_records(folder, ready)
    Ledger.writing(folder, ready)  # killed here: nothing is settled yet
    assert begin(folder, spec()).budget.trials == 16


def test_a_changed_spec_goes_on_where_that_is_allowed_and_is_recorded(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    begin(folder, spec())
    changed = spec("train.lr=0.5", "space.mixing_alpha.high=5")
    ledger = begin(folder, changed, allow_changes=True)
    (lines,) = [value["lines"] for key, value in ledger.attrs.items() if key.startswith("change:")]
    assert lines[0] == "train.lr: 0.01 -> 0.5"
    frozen = spec_from_resolved(folder.spec.read_text(encoding="utf-8"))
    assert frozen.train.lr == 0.5
    assert frozen.train.threads == 1, "what was decided at the start stays"
    assert "change:" not in "".join(begin(folder, changed).attrs.keys() - ledger.attrs.keys())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.metric=val_fine_auroc", "different metrics cannot be compared"),
        (
            "objective=[{metric: val_auroc}, {metric: val_accuracy}]",
            "different metrics cannot be compared",
        ),
        (
            "space.mixing_alpha={choices: [1.0, 2.0]}",
            "space.mixing_alpha: its choices, kind and log scale",
        ),
    ],
)
def test_what_would_make_the_trials_incomparable_is_never_allowed(
    folder: SweepFolder, spec: MakeSpec, override: str, words: str
) -> None:
    begin(folder, spec())
    with pytest.raises(UsageError, match=words):
        begin(folder, spec(override), allow_changes=True)


def test_changed_code_is_refused_by_name_unless_it_is_allowed(
    folder: SweepFolder, spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 1\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text("from helper import FACTOR\nimport math\n", encoding="utf-8")
    own = spec().model_copy(update={"trainable": "mine:Mine"})
    begin(folder, own, import_path=tmp_path)
    begin(folder, own, import_path=tmp_path)
    (tmp_path / "helper.py").write_text("FACTOR = 2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="helper.py: changed") as refused:
        begin(folder, own, import_path=tmp_path)
    assert "--allow-changes" in str(refused.value)
    assert "mine.py" not in str(refused.value)
    ledger = begin(folder, own, import_path=tmp_path, allow_changes=True)
    assert [value["lines"] for key, value in ledger.attrs.items() if key.startswith("change:")] == [
        ["helper.py: changed"]
    ]
    begin(folder, own, import_path=tmp_path)


def test_another_version_of_torch_is_a_change(
    folder: SweepFolder, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = begin(folder, spec())
    ledger.set_attr("code", ledger.attrs["code"] | {"torch": "1.0", "lmoe_tune/model.py": "0"})
    with pytest.raises(UsageError, match=r"lmoe_tune/model.py: changed\n  torch: 1.0 -> "):
        begin(folder, spec())


def test_a_sweep_whose_ledger_is_gone_is_not_begun_over_its_records(
    folder: SweepFolder, spec: MakeSpec
) -> None:
    write_about(begin(folder, spec()))
    folder.ledger.unlink()
    with pytest.raises(UsageError, match="doctor --rebuild small"):
        begin(folder, spec())
    with pytest.raises(UsageError, match="doctor --rebuild small"):
        find_sweep(folder.home, "small")
    assert begin(folder, spec(), fresh=True).trials() == []


@pytest.mark.parametrize(("cache", "is_refused"), [("disk", True), ("off", False)])
def test_images_that_the_disk_has_no_room_for_are_refused_before_the_sweep_is_made(
    tmp_path: Path,
    spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    cache: Literal["disk", "off"],
    is_refused: bool,
) -> None:
    for place in range(60):
        path = tmp_path / ("mine" if place < 40 else "other") / f"c{place % 4}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    data = DataSpec(
        id=Dataset(dataset="folder", root=str(tmp_path / "mine")),
        outliers=Dataset(dataset="folder", root=str(tmp_path / "other")),
        resize=32,
        cache=cache,
    )
    monkeypatch.setattr(decoded_cache, "SPARE_BYTES", 1 << 60)
    folder = SweepFolder(tmp_path / "home", "mine")
    wanted = loaded(spec().model_copy(update={"data": data}))
    if is_refused:
        with pytest.raises(UsageError, match="must stay free for checkpoints"):
            prepare(folder, wanted, fresh=False)
    else:
        prepare(folder, wanted, fresh=False)
    assert not folder.path.exists()
