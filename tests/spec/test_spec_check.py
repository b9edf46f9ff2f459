from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lmoe_tune.errors import SpecError, UsageError
from lmoe_tune.spec import (
    BoundExpression,
    Declaration,
    Parameter,
    load_data,
    load_params,
    load_spec,
)
from tests.spec.conftest import DECLARATIONS, MINIMAL, folder_missing

FULL = """\
name: cars
trainable: logit_mixoe
data:
  id: {dataset: stanford_cars, root: cars}
  outliers: {dataset: folder, root: web, limit: 40000}
  coarse_ood: [{dataset: fgvc_aircraft, root: planes}]
model: {arch: resnet50, weights: imagenet, baseline: {epochs: 90}}
train: {epochs: 10, batch_size: 32, lr: 1e-3, weight_decay: 1e-5}
space:
  mixing_alpha: {low: 0.1, high: 10, log: true}
budget: {trials: 64, time: 12h}
"""


def nothing_missing(dataset):
    return None


# What may be left out


def test_a_minimal_spec_of_the_digits_is_complete(load):
    spec = load()
    assert spec.data.outliers.dataset == "photo_china"
    assert [dataset.dataset for dataset in spec.data.coarse_ood] == ["photo_flower"]
    assert (spec.model.arch, spec.model.baseline.lr, spec.train.epochs) == ("small_cnn", 0.1, 10)
    assert (spec.budget.trials, spec.search.max_concurrent) == (16, 2)
    assert spec.search.start_from == ({"mixing_alpha": 1.0},)
    assert spec.objective.constraints["val_accuracy"].min == BoundExpression(
        relative=True, offset=-0.02
    )


def test_without_a_space_the_digits_have_that_of_digits_yaml(load):
    spec = load("name: x\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n")
    assert list(spec.space) == ["mixing_alpha", "consistency_weight", "outlier_ratio"]
    assert spec.search.start_from == (
        {"mixing_alpha": 1.0, "consistency_weight": 1.0, "outlier_ratio": 1.0},
    )


def test_another_method_on_the_digits_must_say_what_to_search(load):
    text = "name: x\ntrainable: baseline\ndata: {id: {dataset: digits}}\n"
    assert load.problem(text) == "x.yaml:1:1 space: is missing"
    spec = load(text + "space: {lr: {low: 1e-3, high: 1, log: true}}\n")
    assert spec.search.start_from == ({"lr": 0.01},)


def test_a_section_that_is_given_in_part_keeps_the_other_defaults(load, with_line):
    spec = load(with_line("train: {epochs: 3}\nmodel: {baseline: {epochs: 2}}"))
    assert (spec.train.epochs, spec.train.lr) == (3, 0.01)
    assert (spec.model.arch, spec.model.baseline.epochs, spec.model.baseline.lr) == (
        "small_cnn",
        2,
        0.1,
    )


def test_a_budget_of_time_is_not_also_one_of_trials(load, with_line):
    assert load(with_line("budget: {time: 10m}")).budget.trials is None
    assert load(with_line("budget: {max_failed: 1}")).budget.trials == 16


def test_a_default_point_leaves_out_what_the_space_excludes(load, with_space):
    assert load(with_space("{mixing_alpha: {low: 2, high: 10}}")).search.start_from == ()


def test_images_of_ones_own_need_data_and_a_space(load):
    text = "data: {id: {dataset: folder, root: .}}\n"
    assert [line.split(": ")[0] for line in load.problems(text)] == [
        "x.yaml:1:1 space",
        "x.yaml:1:7 data.outliers",
    ]


SHORTEST = """\
data:
  id: {dataset: folder, root: id}
  outliers: {dataset: folder, root: out}
space: {mixing_alpha: {low: 0.1, high: 10, log: true}}
"""


def test_the_shortest_spec_has_the_published_settings(load):
    spec = load(SHORTEST, missing=nothing_missing)

    assert (spec.name, spec.trainable) == ("x", "logit_mixoe"), "the name of the file"
    assert (spec.model.arch, spec.model.weights) == ("resnet50", "imagenet")
    assert (spec.model.baseline.epochs, spec.train.epochs, spec.train.batch_size) == (90, 10, 32)
    assert (spec.train.lr, spec.train.weight_decay) == (1e-3, 1e-5)
    assert (spec.data.resize, spec.data.crop, spec.data.coarse_ood) == (512, 448, ())
    assert (spec.objective.metric, spec.budget.trials) == ("val_auroc", 32)
    assert spec.search.start_from == ({"mixing_alpha": 1.0},), "the untuned defaults go first"


def test_what_goes_together_is_filled_in_together(load):
    spec = load(SHORTEST, "data.crop=224", "model.arch=small_cnn", missing=nothing_missing)

    assert (spec.data.image_side, spec.data.crop) == (256, 224)
    assert spec.model.weights == "none", "there are no ImageNet weights of it"
    assert load(SHORTEST, "data.resize=300", missing=nothing_missing).data.image_crop == 300


def test_a_name_from_a_file_must_be_one(load, tmp_path):
    path = tmp_path / "my cars.yaml"
    path.write_text(MINIMAL.replace("name: x\n", ""), encoding="utf-8")
    with pytest.raises(SpecError, match="name: is missing: it must be 1 to 64 letters"):
        load_spec(path, declarations=DECLARATIONS)


def test_what_was_filled_in_is_known(load, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SHORTEST + "train: {epochs: 3}\n", encoding="utf-8")
    loaded = load_spec(
        path, overrides=["train.lr=0.1"], declarations=DECLARATIONS, missing=nothing_missing
    )

    assert "name mine" in loaded.filled_in
    assert "data.coarse_ood none" in loaded.filled_in
    assert "model.baseline.epochs 90" in loaded.filled_in
    assert "train.batch_size 32" in loaded.filled_in
    assert not any(setting.startswith(("train.epochs", "train.lr")) for setting in loaded.filled_in)
    assert load_spec(path, name="y", declarations=DECLARATIONS).spec.name == "y"


def test_the_data_alone_need_nothing_else(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("trian: 1\ndata: {id: {dataset: folder, root: id}}\n", encoding="utf-8")
    data = load_data(path, declarations=DECLARATIONS, missing=None)
    assert (data.id.root, data.crop) == (str(Path("id").absolute()), 448)

    path.write_text("data: {id: {dataset: folder}, corp: 3}\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_data(path, declarations=DECLARATIONS, missing=None)
    assert [problem.key for problem in caught.value.problems] == ["data.id.root", "data.corp"]

    path.write_text(
        "data: {id: {dataset: folder, root: id}, outliers: {dataset: photo_china}}\n",
        encoding="utf-8",
    )
    with pytest.raises(SpecError, match="photo_china is embedded, 8 x 8 pixels: it goes with"):
        load_data(path, declarations=DECLARATIONS, missing=None)


def test_the_baseline_needs_no_outliers(load):
    lines = [line for line in FULL.splitlines() if "outliers" not in line]
    text = (
        "\n".join(lines)
        .replace("logit_mixoe", "baseline")
        .replace("mixing_alpha", "lr")
        .replace("0.1,", "1e-3,")
    )
    spec = load(text, missing=nothing_missing)
    assert spec.data.outliers is None


def test_the_direction_is_the_metrics_own(load, with_line):
    assert load().objective.direction == "maximize"
    spec = load(with_line("objective: {metric: train_loss, constraints: {}}"))
    assert (spec.objective.direction, spec.objective.constraints) == ("minimize", {})


# What is read


def test_numbers_have_the_type_of_their_parameter(load, with_space):
    spec = load(
        with_space(
            "{mixing_alpha: {low: 1, high: 2}, num_groups: {low: 1, high: 8},"
            " outlier_ratio: {choices: [1, 5e-1, 1e-4]}, consistency: {choices: [mse, kl]},"
            " center_logits: {choices: [true, false]}}"
        )
    )
    assert type(spec.space["mixing_alpha"].low) is float
    assert spec.space["num_groups"].int_
    assert spec.space["outlier_ratio"].choices == (1.0, 0.5, 1e-4)
    assert spec.space["center_logits"].choices == (True, False)
    assert load(
        with_space("{mix_weight: {low: 0, high: 2}}") + "fixed: {mixing_alpha: 2}\n"
    ).fixed == {"mixing_alpha": 2.0}


def test_durations_are_seconds(load, with_line):
    spec = load(with_line("budget: {time: 1h30m}\nresources: {epoch_timeout: 90}"))
    assert (spec.budget.time, spec.resources.epoch_timeout) == (5400.0, 90.0)


def test_paths_are_relative_to_the_working_directory_else_to_the_spec(load, tmp_path, declarations):
    from lmoe_tune.spec import load_spec

    for name in ("here/cars", "specs/web", "specs/cars"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cars").symlink_to("here/cars")
    file = tmp_path / "specs" / "x.yaml"
    file.write_text(FULL, encoding="utf-8")
    data = load_spec(file, declarations=declarations, missing=nothing_missing).spec.data
    assert data.id.root == str(tmp_path / "cars")
    assert data.outliers.root == str(tmp_path / "specs" / "web")
    assert data.coarse_ood[0].root == str(tmp_path / "planes")


def test_a_set_to_validate_with_is_checked_like_the_others(load, tmp_path):
    def with_set(text):
        return FULL.replace("  coarse_ood:", f"  val_coarse: {text}\n  coarse_ood:", 1)

    data = load(with_set("{dataset: folder, root: val}"), missing=nothing_missing).data
    assert data.val_coarse.root.endswith("/val") and data.val_coarse.root.startswith("/")
    for text, what in (
        ("{dataset: fgvc_aircraft, root: planes}", "these are the images of"),
        ("{dataset: folder}", "root"),
        ("{dataset: foldr, root: val}", "did you mean 'folder'"),
    ):
        with pytest.raises(SpecError, match=what):
            load(with_set(text), missing=nothing_missing)


def test_the_data_section_can_be_hashed(load):
    assert hash(load().data) == hash(load().data)


def test_a_trainable_of_ones_own_is_asked_for_its_declaration(load, tmp_path):
    asked = []

    def resolve(name, folder):
        asked.append((name, str(folder)))
        return Declaration("own", "own", (Parameter("x", "float", 0.0, "x"),))

    text = "name: x\ntrainable: pkg.mod:Own\ndata: {id: {dataset: digits}}\nspace: {x: {low: 0, high: 1}}\n"
    assert load(text, resolve=resolve).space["x"].high == 1
    assert asked == [("pkg.mod:Own", ".")]


def test_a_trainable_that_cannot_be_resolved_is_one_problem(load, minimal):
    def resolve(name, folder):
        raise UsageError("'pkg' has\nno class 'Own'")

    text = minimal.replace("logit_mixoe", "pkg:Own")
    assert load.problem(text, resolve=resolve) == "x.yaml:2:12 trainable: 'pkg' has no class 'Own'"
    assert "cannot be used here" in load.problem(text)


# Data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("root: cars}", "limit: 3}"), "data.id.root: is missing: the folder of stanford_cars"),
        (
            ("dataset: folder, root: web", "dataset: photo_china, root: web"),
            "photo_china comes with the installation",
        ),
        (("dataset: stanford_cars", "dataset: webvision"), "webvision has no classes to learn"),
        (
            ("dataset: folder, root: web", "dataset: stanford_cars, root: ./cars"),
            "these are the images of data.id",
        ),
        (
            ("dataset: fgvc_aircraft, root: planes", "dataset: folder, root: web"),
            "these are the images of data.outliers",
        ),
        (
            ("data:\n", "data:\n  resize: 32\n  crop: 64\n"),
            "value is 64, but must be at most data.resize, 32",
        ),
        (
            ("data:\n", "data:\n  num_id_classes: 5\n  num_val_novel: 4\n"),
            "value is 4, but must be at most 3",
        ),
        (("root: cars", "root: ''"), "data.id.root: value is '', but must be text of 1 to 500"),
        (("root: cars", 'root: "a\\0b"'), "data.id.root: value is 'a\\x00b', but must be text"),
        (("coarse_ood:", "coarse_odd:"), "unknown key; did you mean 'coarse_ood'?"),
        (("outliers:", "outlers:"), "unknown key; did you mean 'outliers'?"),
        (
            ("[{dataset: fgvc_aircraft, root: planes}]", "{dataset: fgvc_aircraft, root: planes}"),
            "put it in brackets, [{…}]",
        ),
    ],
)
def test_wrong_data_are_one_problem(load, change, message):
    assert change[0] in FULL
    assert message in load.problem(FULL.replace(*change), missing=nothing_missing)


def test_a_metric_of_outliers_needs_outliers(load, minimal):
    text = minimal.replace("logit_mixoe", "baseline").replace("mixing_alpha", "lr")
    text += "objective: {metric: val_coarse_auroc}\n"
    assert "measured on outliers, but data.outliers is not given" in load.problem(
        text, "data.outliers=null"
    )


def test_every_folder_that_is_missing_is_named(load, tmp_path):
    (tmp_path / "web").mkdir()
    assert load.problems(FULL) == [
        f"x.yaml:4:38 data.id.root: there is no folder {tmp_path}/cars",
        f"x.yaml:6:47 data.coarse_ood.0.root: there is no folder {tmp_path}/planes",
    ]


def test_folders_are_not_looked_for_without_being_asked(load, tmp_path):
    assert load(FULL, missing=None).data.id.root == str(tmp_path / "cars")
    (tmp_path / "w.pt").touch()
    text = FULL.replace("imagenet", "w.pt")
    assert load(text, missing=nothing_missing).model.weights == str(tmp_path / "w.pt")


def test_what_is_missing_is_asked_of_the_caller_with_an_absolute_root(load, tmp_path):
    asked = []

    def missing(dataset):
        asked.append(dataset.root)
        return "no devkit" if dataset.dataset == "stanford_cars" else folder_missing(dataset)

    for name in ("cars", "web", "planes"):
        (tmp_path / name).mkdir()
    assert load.problem(FULL, missing=missing) == "x.yaml:4:38 data.id.root: no devkit"
    assert asked == [str(tmp_path / name) for name in ("cars", "web", "planes")]


# The file


def test_a_file_is_named_as_given_or_relative_where_that_is_shorter(load, tmp_path, declarations):
    from lmoe_tune.errors import SpecError
    from lmoe_tune.spec import load_spec

    with pytest.raises(SpecError, match=r"^x\.yaml:1:1 "):
        load("a: 1")
    with pytest.raises(SpecError, match=r"^x\.yaml:1:1 "):
        load_spec(tmp_path / "x.yaml", declarations=declarations)


@pytest.mark.parametrize("text", ["", "# nothing", "[]", "abc", "- a"])
def test_a_file_without_a_mapping_says_how_to_start(load, text):
    message = load.problem(text)
    assert message.startswith("x.yaml:1:1 the file ")
    assert message.endswith(
        "a spec starts with name, trainable, data and space; see search_spaces/digits.yaml"
    )


@pytest.mark.timeout(30)
def test_thousands_of_wrong_keys_are_reported_quickly(load):
    assert len(load.problems("".join(f"trainabl{place}: 1\n" for place in range(5000)))) > 5000


def test_a_parameter_file_is_checked_against_the_declaration(tmp_path, monkeypatch, declarations):
    from lmoe_tune.errors import SpecError

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "p.yaml"
    path.write_text("mixing_alpha: 1\nlr: 1e-3\n", encoding="utf-8")
    assert load_params(path, declarations["logit_mixoe"]) == {"mixing_alpha": 1.0, "lr": 1e-3}
    path.write_text("mixing_alfa: 1\nlr: 0\nlr: 1\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_params(path, declarations["logit_mixoe"])
    assert str(caught.value).splitlines() == [
        "p.yaml:1:1 mixing_alfa: unknown parameter; did you mean 'mixing_alpha'?",
        "p.yaml:2:5 lr: value is 0, but must be a number greater than 0",
        "p.yaml:3:1 lr: the key is set twice: first in line 2",
    ]


@pytest.mark.timeout(30)
def test_importing_the_spec_is_light():
    code = "import sys; import lmoe_tune.spec; print(*{'torch', 'ray', 'optuna', 'mlflow', 'numpy'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert run.stdout.split() == []
