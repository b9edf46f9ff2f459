"""Every kind of problem of a spec: each is told once, with its place and what to do."""

from __future__ import annotations

import pytest


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(load):
    text = """\
nmae: x
trainable: logit_mixoe
data:
  id: {dataset: digits, limit: 0}
  split: 0
  split: 1
trian: {epochs: 10}
fixed: {mix_weight: -1, mixing_alpha: 2}
space:
  mixing_alfa: {low: 0.1, high: 10}
  mixing_alpha: {low: 0.1, high: 10}
  consistency_weight: {low: 3, high: 2}
objective: {metric: val_aurok, constraints: {val_accuracy: {min: 1.5}}}
search: {sampler: tpee, start_from: [{consistency_wieght: 1.0}]}
"""
    expected = [
        ("1:1 nmae", "unknown key; did you mean 'name'?"),
        ("4:32 data.id.limit", "value is 0, but must be a whole number of at least 1"),
        ("6:3 data.split", "the key is set twice: first in line 5"),
        ("7:1 trian", "unknown key; did you mean 'train'?"),
        ("8:21 fixed.mix_weight", "value is -1, but must be a number of at least 0"),
        (
            "8:25 fixed.mixing_alpha",
            "is both fixed and searched: keep it under fixed or under space",
        ),
        ("10:3 space.mixing_alfa", "unknown parameter; did you mean 'mixing_alpha'?"),
        (
            "12:29 space.consistency_weight.low",
            "the range is empty: low is 3, but must be less than high, 2",
        ),
        ("13:21 objective.metric", "there is no metric 'val_aurok'; did you mean 'val_auroc'?"),
        (
            "13:66 objective.constraints.val_accuracy.min",
            "value is 1.5, but must be between 0 and 1, as val_accuracy is; did you mean 0.015?",
        ),
        (
            "14:19 search.sampler",
            "value is 'tpee', but must be one of tpe, random, grid, qmc, cmaes, gp, nsga2; did you mean 'tpe'?",
        ),
        (
            "14:39 search.start_from.0.consistency_wieght",
            "unknown parameter; did you mean 'consistency_weight'?",
        ),
    ]
    assert load.problems(text) == [f"x.yaml:{place}: {what}" for place, what in expected]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("logit_mixoe", "logit_mixo"),
            "2:12 trainable: unknown trainable 'logit_mixo'; did you mean 'logit_mixoe'?",
        ),
        (("digits", "digit"), "did you mean 'digits'?"),
        (("data:", "dta:"), "3:1 dta: unknown key; did you mean 'data'?"),
        (("{dataset: digits}", "digits"), "but must be a mapping such as {dataset: digits}"),
        (
            ("mixing_alpha", "mixing_alfa"),
            "4:9 space.mixing_alfa: unknown parameter; did you mean 'mixing_alpha'?",
        ),
        (
            ("dataset: digits", "dataset: {name: digits}"),
            "data.id.dataset: value is a mapping, but must be one of digits, photo_china",
        ),
        (("name: x", "name: [x]"), "1:7 name: value is a list, but must be 1 to 64 letters"),
        (("log: true", "lgo: true"), "unknown key; did you mean 'log'?"),
        (("low: 0.1, high: 10", "min: 0.1, high: 10"), "unknown key; did you mean 'low'?"),
    ],
)
def test_one_cause_is_one_problem(load, minimal, change, message):
    assert message in load.problem(minimal.replace(*change))


def test_what_else_is_wrong_is_reported_beside_a_misspelt_method(load, minimal):
    space = "space: {mixing_alfa: {low: 0.1, high: 10}, mix_weight: {low: -1, high: 1}}"
    text = minimal.replace("logit_mixoe", "logit_mixo").rpartition("space")[0] + space
    assert load.problems(text) == [
        "x.yaml:2:12 trainable: unknown trainable 'logit_mixo'; did you mean 'logit_mixoe'?",
        "x.yaml:4:9 space.mixing_alfa: unknown parameter; did you mean 'mixing_alpha'?",
        "x.yaml:4:62 space.mix_weight.low: value is -1, but must be a number of at least 0, as mix_weight is",
    ]


def test_every_wrong_method_of_a_list_is_reported_and_what_the_known_ones_refuse(load, minimal):
    methods = "method: {choices: [basline, nosuch, 'own:Mine', 3, logit_mixoe, logit_mixoe]}"
    space = f"space: {{{methods}, mix_weight: {{low: -1, high: 1}}, of_mine: {{low: 0, high: 1}}}}"
    text = minimal.replace("trainable: logit_mixoe\n", "").rpartition("space")[0] + space
    said = "\n".join(load.problems(text))
    for place, what in enumerate(
        (
            "unknown trainable 'basline'; did you mean 'baseline'?",
            "unknown trainable 'nosuch'; there are logit_mixoe, baseline",
            "your own trainable cannot be used here",
            "value is 3, but must be one of logit_mixoe, baseline",
        )
    ):
        assert f"space.method.choices.{place}: {what}" in said
    assert "space.mix_weight.low: value is -1, but must be a number of at least 0" in said
    assert "of_mine" not in said  # 'own:Mine' may have it


def test_a_method_that_is_twice_in_a_list_is_reported_at_its_place(load, minimal):
    space = "space: {method: {choices: [baseline, baseline]}, lr: {low: 0.1, high: 1}}"
    text = minimal.replace("logit_mixoe", "baseline").rpartition("space")[0] + space
    assert load.problem(text).startswith("x.yaml:4:38 space.method.choices.1: 'baseline' is in the")


def test_points_of_a_single_method_are_not_asked_which_method_they_are_of(load, minimal):
    space = "space: {lr: {low: 0.1, high: 1}, logit_mixoe.lr: {low: 0.1, high: 1}}"
    text = minimal.rpartition("space")[0] + space + "\nsearch: {start_from: [{lr: 0.5}]}"
    assert load.problem(text).startswith("x.yaml:4:34 space.logit_mixoe.lr: unknown parameter; ")


def test_a_list_of_methods_under_trainable_is_told_where_it_goes(load, minimal):
    text = minimal.replace("logit_mixoe", "[logit_mixoe, baseline]")
    assert "to search several, give space.method {choices: " in load.problem(text)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{}", "4:8 space: there is nothing to search: name at least one parameter"),
        ("", "4:7 space: value is empty, but must be a mapping"),
        ("[mixing_alpha]", "space: value is a list, but must be a mapping"),
        ("{mixing_alpha: 1}", "put it under fixed"),
        ("{mixing_alpha: [0.1, 1]}", "such as {low: …, high: …} or {choices: […]}"),
        ("{mixing_alpha: {}}", "has neither low and high nor choices"),
        ("{mixing_alpha: {low: 1}}", "space.mixing_alpha.high: is missing"),
        ("{mixing_alpha: {low: 1, high: 1}}", "the range is empty"),
        ("{mixing_alpha: {low: 2, high: 1}}", "low is 2, but must be less than high, 1"),
        ("{mixing_alpha: {low: abc, high: 1}}", "value is 'abc', but must be a number"),
        (
            "{mixing_alpha: {low: '1', high: 2}}",
            "value is '1', but must be a number; leave out the quotes",
        ),
        (
            "{mixing_alpha: {low: .nan, high: 1}}",
            "value is .nan, but must be a number; it must be finite",
        ),
        (
            "{mixing_alpha: {low: 1, high: .inf}}",
            "value is .inf, but must be a number; it must be finite",
        ),
        ("{mixing_alpha: {low: true, high: 2}}", "value is true, but must be a number"),
        (
            "{mixing_alpha: {low: 1, high: 2, log: yes}}",
            "value is 'yes', but must be true or false",
        ),
        (
            "{mixing_alpha: {low: 0, high: 2, log: true}}",
            "value is 0, but must be a number greater than 0, as mixing_alpha is",
        ),
        (
            "{mix_weight: {low: 0, high: 2, log: true}}",
            "value is 0, but must be greater than 0 with log: true",
        ),
        (
            "{mixing_alpha: {low: 1, high: 2, log: true, step: 1}}",
            "step: does not go with log: true",
        ),
        (
            "{mixing_alpha: {low: 1, high: 2, step: 0}}",
            "step: value is 0, but must be a number greater than 0",
        ),
        (
            "{mixing_alpha: {low: 1, high: 2, step: 3}}",
            "step: value is 3, but must be at most high - low, 1",
        ),
        (
            "{mixing_alpha: {low: 1, high: 2, step: 0.3}}",
            "does not reach high: it ends at 1.9, not 2",
        ),
        ("{mixing_alpha: {low: 1e-300, high: 1e308, step: 5e-324}}", "too many steps to count"),
        ("{mixing_alpha: {low: 0.1, high: 1, step: 1e-300}}", "too many steps to count"),
        ("{mixing_alpha: {low: 1, high: 2, int: true}}", "int: mixing_alpha is not a whole number"),
        (
            "{num_groups: {low: 1.5, high: 4}}",
            "low: value is 1.5, but must be a whole number between 1 and 64",
        ),
        (
            "{num_groups: {low: 1, high: 4, step: 1.5}}",
            "step: value is 1.5, but must be a whole number",
        ),
        (
            "{num_groups: {low: 1, high: 65}}",
            "high: value is 65, but must be a whole number between 1 and 64",
        ),
        (
            "{outlier_ratio: {low: 1, high: 9}}",
            "high: value is 9, but must be a number greater than 0 and at most 8",
        ),
        (
            "{consistency: {low: 1, high: 2}}",
            "consistency has no range: give {choices: [mse, kl, js]}",
        ),
        (
            "{center_logits: {low: 0, high: 1}}",
            "center_logits has no range: give {choices: [true, false]}",
        ),
        (
            "{consistency: {choices: []}}",
            "choices: value is an empty list, but must be a list of at least one value",
        ),
        ("{consistency: {choices: mse}}", "choices: value is 'mse', but must be a list"),
        ("{consistency: {choices: null}}", "choices: value is empty, but must be a list"),
        ("{consistency: {choices: [mse, mse]}}", "choices.1: 'mse' is in the list twice"),
        ("{mixing_alpha: {choices: [1, 1.0]}}", "choices.1: 1.0 is in the list twice"),
        (
            "{mixing_alpha: {choices: [1, abc]}}",
            "choices.1: value is 'abc', but must be a number greater than 0",
        ),
        (
            "{mixing_alpha: {choices: [1, [2]]}}",
            "choices.1: value is a list, but must be a number, text, true or false",
        ),
        ("{mixing_alpha: {choices: [1, null]}}", "choices.1: value is empty, but must be"),
        ("{mixing_alpha: {choices: [1, 2], low: 1}}", "low: does not go with choices"),
        ("{mixing_alpha: {choices: [" + "1, " * 1001 + "]}}", "must be a list of at most 1000"),
        (
            "{lr: {low: 1e-9, high: 1}}",
            "low: value is 1e-09, but must be at least train.min_lr, 1e-06",
        ),
    ],
)
def test_a_wrong_distribution_is_one_problem(load, with_space, space, message):
    assert message in load.problem(with_space(space))


@pytest.mark.parametrize(
    ("space", "entry"),
    [
        ("{mixing_alpha: {low: 0.1, high: 0.7, step: 0.1}}", "low"),
        ("{mix_weight: {low: 0, high: 5}}", "low"),
        ("{num_groups: {low: 1, high: 64, log: true}}", "low"),
        ("{num_groups: {low: 1, high: 9, step: 2, int: true}}", "low"),
        ("{weight_decay: {low: 1e-6, high: 1e-2, log: true}}", "low"),
        ("{mixing_alpha: {choices: [1e-4]}}", "choices"),
    ],
)
def test_a_right_distribution_loads(load, with_space, space, entry):
    (distribution,) = load(with_space(space)).space.values()
    assert getattr(distribution, entry) is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fixed: {mix_weigth: 1}", "unknown parameter; did you mean 'mix_weight'?"),
        ("fixed: {qqq: 1}", "unknown parameter; logit_mixoe has mixing_alpha, mix_weight,"),
        ("fixed: {mix_weight: [1]}", "value is a list, but must be a number, text, true or false"),
        ("fixed: {mix_weight: }", "value is empty, but must be a number, text, true or false"),
        ("fixed: {consistency: l1}", "value is 'l1', but must be one of 'mse', 'kl', 'js'"),
        ("fixed: [1]", "5:8 fixed: value is a list, but must be a mapping"),
        ("objective: {metric: lr}", "lr is recorded only"),
        ("objective: {metric: epoch_s}", "epoch_s is recorded only"),
        ("objective: {direction: minimize}", "val_auroc is better when higher: write maximize"),
        (
            "objective: {direction: max}",
            "value is 'max', but must be one of maximize, minimize; did you mean 'maximize'?",
        ),
        ("objective: {score: mps}", "did you mean 'msp'?"),
        (
            "objective: {constraints: {val_acuracy: {min: 0}}}",
            "there is no metric 'val_acuracy'; did you mean 'val_accuracy'?",
        ),
        ("objective: {constraints: {images_per_s: {min: 9}}}", "images_per_s is recorded only"),
        ("objective: {constraints: {val_accuracy: 0.9}}", "value is 0.9, but must be a mapping"),
        ("objective: {constraints: {val_accuracy: {}}}", "bounds nothing: give min, max or both"),
        (
            "objective: {constraints: {val_accuracy: {mni: 0.1}}}",
            "unknown key; did you mean 'min'?",
        ),
        (
            "objective: {constraints: {val_accuracy: {min: 1.5}}}",
            "value is 1.5, but must be between 0 and 1, as val_accuracy is",
        ),
        ("objective: {constraints: {val_accuracy: {min: 98}}}", "did you mean 0.98?"),
        (
            "objective: {constraints: {val_accuracy: {min: -0.02}}}",
            "did you mean 'baseline - 0.02'?",
        ),
        (
            "objective: {constraints: {val_accuracy: {max: -1}}}",
            "value is -1, but must be between 0 and 1",
        ),
        (
            "objective: {constraints: {val_accuracy: {min: baseline + 2}}}",
            "no baseline can make that hold",
        ),
        (
            "objective: {constraints: {val_accuracy: {min: basline - 0.1}}}",
            "but must be a number, or an expression such as 'baseline'",
        ),
        (
            "objective: {constraints: {val_accuracy: {min: 0.9, max: 0.8}}}",
            "cannot hold: min is 0.9, but must be at most max, 0.8",
        ),
        (
            "objective: {constraints: {val_accuracy: {min: baseline, max: baseline - 0.1}}}",
            "cannot hold: min is 'baseline'",
        ),
        (
            "objective: {constraints: {train_loss: {min: -1}}}",
            "must be at least 0: train_loss is never below it",
        ),
        (
            "objective: {constraints: {train_mix_loss: {max: baseline}}}",
            "must be a number: the baseline has no train_mix_loss",
        ),
        ("objective: {constraints: }", "constraints: value is empty, but must be a mapping"),
        ("search: {start_from: {mixing_alpha: 1}}", "value is a mapping, but must be a list"),
        ("search: {start_from: [1]}", "start_from.0: value is 1, but must be a mapping"),
        ("search: {start_from: [{}]}", "start_from.0: the point is empty"),
        (
            "search: {start_from: [{mixing_alpha: 11}]}",
            "value is 11, but must be a number between 0.1 and 10",
        ),
        (
            "search: {start_from: [{mixing_alpha: a}]}",
            "value is 'a', but must be a number between 0.1 and 10",
        ),
        (
            "search: {start_from: [{mixing_alpha: true}]}",
            "value is true, but must be a number between 0.1 and 10",
        ),
        (
            "search: {start_from: [{mixing_alpha: }]}",
            "value is empty, but must be a number, text, true or false",
        ),
        ("search: {start_from: [{mix_weight: 1}]}", "mix_weight is not in the space"),
        (
            "search: {start_from: [{mixing_alpha: 1}, {mixing_alpha: 1.0}]}",
            "start_from.1: the same point as number 0",
        ),
        (
            "search: {start_from: [{mixing_alpha: 1, mix_weight: 1}]}\nfixed: {mix_weight: 1}",
            "mix_weight is fixed",
        ),
        ("search: {min_epochs: 11}", "value is 11, but must be at most train.epochs, 10"),
        ("search: {seed: -1}", "value is -1, but must be a whole number of at least 0"),
        (
            "search: {seed: 4294967296}",
            "value is 4294967296, but must be a whole number between 0 and 4294967295",
        ),
        (
            "train: {epochs: 1e9}",
            "value is 1000000000.0, but must be a whole number between 1 and 100000",
        ),
        ("search: {seed: 1.0}", "value is 1.0, but must be a whole number"),
        ("search: {max_concurrent: 0}", "value is 0, but must be a whole number of at least 1"),
        (
            "search: {sampler: grid}",
            "grid needs choices or a step for every parameter: mixing_alpha has neither",
        ),
        ("search: {sampler: cmaes}", "cmaes needs at least two ranges, but the space has 1"),
        ("search: tpe", "search: value is 'tpe', but must be a mapping"),
        ("search:", "search: value is empty, but must be a mapping"),
        ("budget: {}", None),
        ("budget: {time: 1:30}", "value is '1:30', but must be a duration"),
        ("budget: {time: 0}", "value is 0, but must be a duration greater than 0"),
        ("budget: {trials: 1e3}", "value is 1000.0, but must be a whole number"),
        ("budget: {trials: '16'}", "leave out the quotes"),
        ("budget: {gpu_hours: 2}", "resources.gpu is 0: no GPU-hours are ever used up"),
        (
            "budget: {trials: null, max_failed: 3}",
            "budget: nothing ends the sweep: give trials, time or gpu_hours",
        ),
        ("resources: {gpu: 1.5}", "value is 1.5, but must be at most 1"),
        ("resources: {gpu: 2}", "value is 2, but must be at most 1, as a trial trains on one GPU"),
        ("resources: {gpu: -1}", "value is -1, but must be a number of at least 0"),
        ("resources: {cpu: 0}", "value is 0, but must be a number greater than 0"),
        ("resources: {cpus: 1}", "unknown key; did you mean 'cpu'?"),
        ("train: {device: cuda}", "resources.gpu is 0: give the trials a share of a GPU"),
        ("train: {lr: 1e-7}", "value is 1e-07, but must be at least train.min_lr"),
        ("train: {momentum: 1}", "value is 1, but must be a number greater than 0 and less than 1"),
        ("train: {precision: fp16}", "must be one of auto, fp32, bf16"),
        ("model: {arch: resnet51}", "must be one of small_cnn, resnet18,"),
        ("model: {arch: resnet51}", "or timm/NAME of a model of timm; did you mean 'resnet50'?"),
        ("model: {arch: timm/}", "must be one of small_cnn"),
        ("model: {arch: timm/resnet10t}", "but must be small_cnn: the embedded images"),
        ("model: {baseline: {epochs: 0}}", "value is 0, which takes model.weights as the baseline"),
        (
            "model: {baseline: {epochs: -1}}",
            "value is -1, but must be a whole number of at least 0",
        ),
        ("model: {weights: imagenet}", "there are no ImageNet weights of small_cnn"),
        ("model: {weights: imagenat}", "did you mean 'imagenet'?"),
        (
            "model: {weights: no/such.pt}",
            "value is 'no/such.pt', but must be none, imagenet or the path",
        ),
        ("model: {weights: 1}", "put it in quotes"),
        ("train: {tf32: 'true'}", "must be true or false; leave out the quotes"),
        ("epochs: 3", "5:1 epochs: unknown key; did you mean 'train.epochs'?"),
        ("hyperparameters: {}", "unknown key; did you mean 'space'?"),
        (
            "tracking: {experiment: ''}",
            "value is '', but must be text of 1 to 500 printable characters",
        ),
        ("tracking: {experiment: 5}", "put it in quotes"),
        ("tracking: {uri: mlflow.db}", "but must be a URI such as http://host:5000"),
        ("tracking: {uri: 'http://[x'}", "must be a URI such as"),
    ],
)
def test_a_wrong_setting_is_one_problem(load, with_line, line, message):
    if message is None:
        load(with_line(line))
    else:
        assert message in load.problem(with_line(line))


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("train: {precision: 5}", "but must be one of auto, fp32, bf16"),
        ("train: {compile: 3}", "but must be one of auto, true, false"),
    ],
)
def test_where_a_few_words_are_possible_no_quotes_are_advised(load, with_line, line, end):
    assert load.problem(with_line(line)).endswith(end)


@pytest.mark.parametrize(
    "name", ["..", "a..b", "../x", "a/b", ".a", "-a", "", "a" * 65, "ä", "a b", "a\\nb", "a\\0"]
)
def test_a_name_is_safe_as_a_folder(load, minimal, name):
    assert "1:7 name: value is '" in load.problem(
        minimal.replace("name: x", f'name: "{name}"'.replace("\\\\", "\\"))
    )


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "a" * 64, "a.", "x1"])
def test_a_usual_name_is_fine(load, minimal, name):
    assert load(minimal.replace("name: x", f'name: "{name}"')).name == name


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:hunter2@host:5000",
        "https://hunter2@host",
        "postgresql://user:hunter2@db/mlflow",
        "postgresql://db/mlflow?user=me&password=hunter2",
        "http://host/?api_token=hunter2",
    ],
)
def test_a_uri_with_credentials_is_refused_and_never_shown(load, minimal, uri):
    texts = [
        load.problem(minimal + f"tracking: {{uri: '{uri}'}}\n"),
        load.problem(minimal, f"tracking.uri={uri}"),
    ]
    texts += [
        load.problem(minimal + f"tracking: '{uri}'\n"),
        load.problem(minimal, f"traking.url={uri}"),
    ]
    texts += load.problems(minimal, f"tracking={{uri: '{uri}', x: 1}}")
    assert not any("hunter2" in text for text in texts)
    assert "MLFLOW_TRACKING_URI" in texts[0]


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "sqlite:///a/b.db", "databricks", "postgresql://db/mlflow"]
)
def test_a_uri_without_credentials_is_fine(load, minimal, uri):
    assert load(minimal + f"tracking: {{uri: '{uri}'}}\n").tracking.uri == uri


# Points to start from, where the method is searched

METHODS = """\
data: {id: {dataset: digits}}
space:
  method: {choices: [logit_mixoe, baseline]}
  mixing_alpha: {low: 0.1, high: 10}
  baseline.lr: {low: 0.001, high: 0.1}
  weight_decay: {low: 0, high: 1}
search: {start_from: [POINT]}
"""


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (
            "{method: baseline, mixing_alpha: 1}",
            "baseline, the method of this point, does not have it; logit_mixoe does",
        ),
        (
            "{mixing_alpha: 1, baseline.lr: 0.01}",
            "no method has all of mixing_alpha, baseline.lr: make a point for each",
        ),
    ],
)
def test_a_point_whose_parameters_are_of_another_method_is_refused(load, point, words):
    assert words in load.problem(METHODS.replace("POINT", point))


def test_a_point_of_parameters_that_one_method_has_is_a_point_of_that_method(load):
    spec = load(
        METHODS.replace("POINT", "{mixing_alpha: 1}, {baseline.lr: 0.01}, {weight_decay: 0}")
    )

    assert [point.get("method") for point in spec.search.start_from] == [
        "logit_mixoe",
        "baseline",
        None,
    ]


# Sweeps to start from


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("warm_start: [a, b, a]", "warm_start.2: a is in the list twice"),
        ("warm_start: a", "warm_start: value is 'a', but must be a list"),
        ("warm_start: [a/confirm]", "warm_start.0: value is 'a/confirm', but must be 1 to 64"),
        ("name: cars\nwarm_start: [cars]", "warm_start.0: cars is this sweep itself; name others"),
    ],
)
def test_a_sweep_to_start_from_is_another_one_and_named_once(load, line, words):
    assert words in load.problem(f"data: {{id: {{dataset: digits}}}}\n{line}\n")


def test_sweeps_to_start_from_can_be_named_on_the_command_line(load):
    spec = load("data: {id: {dataset: digits}}\n", "warm_start=[a,b]")
    assert spec.warm_start == ("a", "b")
