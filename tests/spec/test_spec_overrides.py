from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.lr=1e-3", lambda spec: spec.train.lr == 1e-3),
        ("train.epochs=3", lambda spec: spec.train.epochs == 3),
        ("name=other", lambda spec: spec.name == "other"),
        ("name=a=b", None),
        (
            "space.mixing_alpha={low: 0.5, high: 2}",
            lambda spec: (
                spec.space["mixing_alpha"].high == 2 and not spec.space["mixing_alpha"].log
            ),
        ),
        ("space.mixing_alpha.low=0.2", lambda spec: spec.space["mixing_alpha"].low == 0.2),
        (
            "space.mix_weight={choices: [1, 2]}",
            lambda spec: spec.space["mix_weight"].choices == (1.0, 2.0),
        ),
        ("search.start_from=[]", lambda spec: spec.search.start_from == ()),
        ("fixed.consistency=kl", lambda spec: spec.fixed == {"consistency": "kl"}),
        ("budget.time=8h", lambda spec: spec.budget.time == 28_800),
        ("train.threads=null", lambda spec: spec.train.threads is None),
        ("data.coarse_ood.0.limit=7", lambda spec: spec.data.coarse_ood[0].limit == 7),
        (" train.lr = 0.5", lambda spec: spec.train.lr == 0.5),
        (
            "objective.constraints.val_accuracy.min=baseline - 0.1",
            lambda spec: spec.objective.constraints["val_accuracy"].min.offset == -0.1,
        ),
    ],
)
def test_an_override_sets_one_setting(load, minimal, override, read):
    if read is None:
        assert "name: value is 'a=b'" in load.problem(minimal, override)
    else:
        assert read(load(minimal, override))


def test_later_overrides_win(load, minimal):
    assert load(minimal, "train.lr=0.1", "train.lr=0.2").train.lr == 0.2


def test_an_override_changes_a_default_space(load):
    spec = load(
        "name: x\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n",
        "space.mixing_alpha.low=0.2",
    )
    assert spec.space["mixing_alpha"].low == 0.2
    assert list(spec.space) == ["mixing_alpha", "consistency_weight", "outlier_ratio"]


def test_an_override_can_make_the_data_the_embedded_ones(load, minimal):
    text = minimal.replace("{id: {dataset: digits}}", "{id: {dataset: folder, root: nowhere}}")
    assert load(text, "data.id={dataset: digits}").train.epochs == 10


def test_an_override_mends_what_is_wrong_in_the_file(load, minimal):
    assert load(minimal + "train: {lr: abc}\n", "train.lr=0.1").train.lr == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.lr=abc",
            "--set train.lr=abc train.lr: value is 'abc', but must be a number greater than 0",
        ),
        ("trian.lr=1", "--set trian.lr=1 trian: unknown key; did you mean 'train'?"),
        ("train.lrr=1", "--set train.lrr=1 train.lrr: unknown key; did you mean 'lr'?"),
        (
            "space.mixing_alfa={low: 1, high: 2}",
            "space.mixing_alfa: unknown parameter; did you mean 'mixing_alpha'?",
        ),
        ("fixed.mixing_alpha=1", "fixed.mixing_alpha: is both fixed and searched"),
        ("train", "--set train an override is KEY=VALUE, such as train.lr=1e-3"),
        ("=1", "an override is KEY=VALUE"),
        ("train..lr=1", "an override is KEY=VALUE"),
        ("", "an override is KEY=VALUE"),
        ("train.lr=", "train.lr: nothing follows '=' (a variable that is not set?)"),
        ("data.cache_dir= ", "(a variable that is not set?); null means its default"),
        ("train.lr=1e-3 # slow", "YAML reads '# slow' as a comment and drops it"),
        ("name=run #2", "name: value is 'run #2', but must be 1 to 64 letters"),
        ("train.epochs=[1", "train.epochs: this is not valid YAML"),
        ("train.epochs=!!python/name:os.system", "the tag !!python/name:os.system is not allowed"),
        ("name.x=1", "name.x: name is a single value: nothing can be set in it"),
        (
            "data.coarse_ood.3.limit=7",
            "data.coarse_ood is a list of 1, counted from 0: there is no '3'",
        ),
        ("data.coarse_ood.x=7", "there is no 'x'"),
        ("budget={trials: 1, trials: 2}", "trials: the key is set twice"),
        ("train.lr=\x00", "the character U+0000 is not allowed"),
        ("train.lr=\udc80", "is not allowed"),
    ],
)
def test_a_wrong_override_is_one_problem_that_names_it(load, minimal, override, message):
    found = load.problem(minimal, override)
    assert found.startswith("--set ")
    assert message in found
    found.encode()


def test_problems_of_overrides_come_after_those_of_the_file(load, minimal):
    found = load.problems(minimal + "train: {epochs: 0}\n", "train.lr=0", "budget.trials=0")
    assert [message.split(" ")[0] for message in found] == ["x.yaml:5:17", "--set", "--set"]
    assert "train.lr" in found[1]


@pytest.mark.parametrize("text", ["007", "1e3", "null", "true", "20251125", "0x10", ".5e1"])
def test_a_setting_of_text_takes_the_text_as_typed(load, minimal, text):
    assert load(minimal, f"tracking.experiment={text}x").tracking.experiment == f"{text}x"
    assert load(minimal, f"name={text.removeprefix('.')}").name == text.removeprefix(".")
    assert load(minimal, name=text.removeprefix(".")).name == text.removeprefix(".")


def test_text_keeps_what_yaml_would_make_something_else_of(load, minimal):
    assert load(minimal, "tracking.experiment=run #2").tracking.experiment == "run #2"
    assert load(minimal, "tracking.experiment=a: b").tracking.experiment == "a: b"
    assert load(minimal, "tracking.experiment=[x]").tracking.experiment == "[x]"
    assert load(minimal, "tracking.experiment='null'").tracking.experiment == "null"
    assert load(minimal, "tracking.experiment=null").tracking.experiment is None


def test_the_name_that_is_given_is_checked_as_text(load, minimal):
    assert load.problem(minimal, name="run #2") == (
        "--name name: value is 'run #2', but must be 1 to 64 letters, digits, '.', '_' or '-', "
        "a letter or digit first, without '..'"
    )


BOTH = """\
data: {id: {dataset: digits}}
space:
  method: {choices: [logit_mixoe, baseline]}
  logit_mixoe.lr: {low: 0.001, high: 0.1}
  mixing_alpha: {low: 0.1, high: 10}
"""


def test_a_parameter_of_one_method_is_set_by_its_full_name(load):
    assert load(BOTH, "space.logit_mixoe.lr.low=0.01").space["logit_mixoe.lr"].low == 0.01
    assert load(BOTH, "fixed.baseline.lr=0.5").fixed == {"baseline.lr": 0.5}
    given = load(BOTH, "search.start_from=[{}]", "search.start_from.0.logit_mixoe.lr=0.05")
    assert given.search.start_from == ({"method": "logit_mixoe", "logit_mixoe.lr": 0.05},)
