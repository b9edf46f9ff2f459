from __future__ import annotations

import pytest
import yaml

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import diff, identity, load_spec, resolved_yaml, spec_from_resolved

RICH = """\
name: "1e5"
trainable: logit_mixoe
data: {id: {dataset: digits, limit: 500}, split: 3, num_id_classes: 8}
fixed: {consistency: kl, mix_weight: 1}
space:
  mixing_alpha: {low: 0.1, high: 10, log: true}
  num_groups: {low: 1, high: 9, step: 2}
  outlier_ratio: {low: 0.25, high: 1, step: 0.25}
  center_logits: {choices: [true, false]}
  consistency_weight: {choices: [1e-4, 1]}
objective:
  metric: train_loss
  constraints: {val_accuracy: {min: baseline - 1e-5, max: 0.9}, val_auroc: {min: baseline}}
search: {start_from: [{mixing_alpha: 1, center_logits: true}]}
budget: {time: 1h30m, gpu_hours: 2}
resources: {gpu: 0.5, epoch_timeout: 0.5}
tracking: {experiment: "yes"}
"""


@pytest.mark.parametrize(
    "overrides", [[], ["name=x"], ["tracking.experiment='~'"], ["tracking.experiment='0x1f: #'"]]
)
def test_a_resolved_spec_reads_back_equal(load, overrides):
    spec = load(RICH, *overrides)
    text = resolved_yaml(spec)
    assert spec_from_resolved(text) == spec
    assert resolved_yaml(spec_from_resolved(text)) == text


def test_a_resolved_spec_is_plain_yaml_for_other_readers_too(load):
    plain = yaml.safe_load(resolved_yaml(load(RICH)))
    assert plain["tracking"]["experiment"] == "yes"
    assert plain["name"] == "1e5"
    assert plain["train"]["min_lr"] == 1e-6
    assert plain["budget"]["time"] == "1h30m"
    assert plain["space"]["num_groups"] == {
        "low": 1,
        "high": 9,
        "step": 2,
        "log": False,
        "int": True,
    }


def test_the_shipped_spaces_read_back_equal(shipped, declarations):
    for path in sorted(shipped.glob("*.yaml")):
        spec = load_spec(path, declarations=declarations).spec
        assert spec_from_resolved(resolved_yaml(spec)) == spec


@pytest.mark.parametrize("cut", [0, 1, 100, 500])
def test_a_damaged_record_is_a_spec_error(load, minimal, cut):
    text = resolved_yaml(load(minimal))
    with pytest.raises(SpecError, match="the recorded spec:"):
        spec_from_resolved(text[:cut])


def test_equal_specs_have_no_difference(load, minimal):
    assert diff(load(minimal), load(minimal)) == []


def test_budget_resources_and_tracking_may_change(load, minimal):
    changed = load(minimal, "budget.trials=99", "resources.cpu=2", "tracking.experiment=e")
    assert diff(load(minimal), changed) == []
    assert not {"budget", "resources", "tracking"} & set(identity(changed))


def test_every_other_change_is_named(load, minimal):
    changed = load(
        minimal,
        "train.lr=0.001",
        "space.mixing_alpha.high=5",
        "fixed.mix_weight=2",
        "search.start_from=[]",
        "data.normalise=train",
    )
    assert diff(load(minimal), changed) == [
        "data.normalise: imagenet -> train",
        "train.lr: 0.01 -> 0.001",
        "fixed: an empty mapping -> not there",
        "space.mixing_alpha.high: 10.0 -> 5.0",
        "search.start_from.0.mixing_alpha: 1.0 -> not there",
        "fixed.mix_weight: not there -> 2.0",
        "search.start_from: not there -> an empty list",
    ]


def test_what_a_spec_leaves_open_agrees_with_what_the_start_decided(load, minimal):
    spec = load(minimal)
    frozen = spec.model_copy(
        update={
            "train": spec.train.model_copy(
                update={"device": "cpu", "precision": "fp32", "threads": 1, "seed": 0}
            )
        }
    )
    assert diff(frozen, spec) == []
    assert diff(frozen, load(minimal, "train.threads=2")) == ["train.threads: 1 -> 2"]
