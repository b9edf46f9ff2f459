from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data import trees


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec over Stanford Cars with a folder of outliers."""
    trees.cars(tmp_path / "data" / "cars")
    trees.class_folders(tmp_path / "data" / "out", ("house", "tree"), per_class=10)
    path = tmp_path / "small.yaml"
    path.write_text(
        """\
name: small
trainable: logit_mixoe
data:
  id: {dataset: stanford_cars, root: data/cars}
  outliers: {dataset: folder, root: data/out}
  coarse_ood: []
  resize: 40
  crop: 32
model: {arch: resnet18, baseline: {epochs: 1}}
train: {epochs: 1, batch_size: 4, lr: 1e-3, weight_decay: 1e-5}
space: {mixing_alpha: {low: 0.1, high: 10, log: true}}
budget: {trials: 1}
""",
        encoding="utf-8",
    )
    return path


def test_an_inspection_prints_one_document(cli: Callable[..., Any], spec: Path) -> None:
    done = cli("data", "inspect", "small.yaml", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["id"]["layout"] == "cars_train, cars_test and devkit"
    assert (found["id"]["classes"], found["id"]["images"], found["outliers"]["images"]) == (
        6,
        60,
        20,
    )
    assert found["splits"]["train"] == {"classes": 3, "images": 12}
    assert not any(problem["stops"] for problem in found["problems"])


def test_a_person_reads_a_table_and_what_to_fix(
    cli: Callable[..., Any], spec: Path, tmp_path: Path
) -> None:
    done = cli("data", "inspect", "small.yaml")
    assert done.returncode == 0
    assert "val_fine" in done.stdout and "fine: a search can start" in done.stdout
    done = cli("data", "inspect", "small.yaml", "--set", "data.id.root=data")
    assert done.returncode == 2
    assert "looks like Stanford Cars one level deeper" in done.stderr
    assert f"set root to {tmp_path}/data/cars" in done.stderr
    assert "1 problem: a search would not start" in done.stderr


def test_a_problem_is_in_the_document_and_in_the_exit_code(
    cli: Callable[..., Any], spec: Path, tmp_path: Path
) -> None:
    done = cli(
        "data",
        "inspect",
        "small.yaml",
        "--format",
        "json",
        "--set",
        "data.id.dataset=fgvc_aircraft",
    )
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["where"] == "data.id.root"
    assert "is Stanford Cars, not FGVC-Aircraft" in problem["what"]
    assert "set dataset to stanford_cars" in problem["fix"]


def test_check_says_what_is_wrong_with_a_folder(cli: Callable[..., Any], spec: Path) -> None:
    assert cli("check", "small.yaml").returncode == 0
    done = cli("check", "small.yaml", "--set", "data.id.root=data/cars/cars_train")
    assert done.returncode == 2
    assert "is a folder inside Stanford Cars. To fix it: set root to" in done.stderr


def test_check_refuses_at_its_place_what_a_search_would_refuse(
    cli: Callable[..., Any], spec: Path
) -> None:
    settings = ("--set", "data.num_id_classes=2", "--set", "warm_start=[nosuch]")
    done = cli("check", "small.yaml", *settings)
    assert done.returncode == 2 and done.stdout == ""
    (split, warm) = done.stderr.splitlines()[:2]
    assert split.startswith("small.yaml:") and "num_val_novel is 1, but must leave" in split
    assert warm.startswith("--set warm_start=[nosuch] warm_start: no sweep 'nosuch' in ")


def test_check_notes_that_no_trial_fits_on_this_machine(cli: Callable[..., Any]) -> None:
    done = cli("check", "digits", "--set", "resources.cpu=100000")
    assert done.returncode == 0
    assert "note: on this machine a search would be refused: resources: a trial asks" in done.stdout


def test_digits_can_be_inspected(cli: Callable[..., Any]) -> None:
    done = cli("data", "inspect", "digits", "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["id"]["images"] == 1797


def test_exclusions_are_checked(cli: Callable[..., Any], spec: Path) -> None:
    done = cli(
        "check",
        "small.yaml",
        "--set",
        "data.outliers.exclude=[none.txt]",
        "--set",
        "data.id.exclude=[x]",
    )
    assert done.returncode == 2
    assert "there is no file" in done.stderr
    assert "only outliers and coarse_ood can leave classes out" in done.stderr
