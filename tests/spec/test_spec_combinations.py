"""Settings that contradict one another, or of which one takes all meaning from another: each pair is
refused with what to do, and a pair beside it that makes sense is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.errors import SpecError
from lmoe_tune.spec import LoadedSpec, load_spec
from trainables import declarations

DIGITS = "data: {id: {dataset: digits}}\n"
IMAGES = """\
data: {id: {dataset: stanford_cars, root: cars}, outliers: {dataset: folder, root: web}}
space: {mixing_alpha: {low: 0.1, high: 10}}
"""
LR = "space={lr: {low: 0.001, high: 0.1}}"
NO_MIXING = ("fixed.mix_weight=0", "fixed.consistency_weight=0")


def loaded(folder: Path, *overrides: str, text: str = DIGITS) -> LoadedSpec:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_spec(path, overrides=overrides, declarations=declarations(), missing=lambda _: None)


def problem(folder: Path, *overrides: str, text: str = DIGITS) -> str:
    with pytest.raises(SpecError) as caught:
        loaded(folder, *overrides, text=text)
    (found,) = caught.value.problems
    return f"{found.key}: {found.what}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.resize=64"], "data.resize: the embedded sets are 8 x 8 pixels"),
        (["data.crop=8"], "data.crop: the embedded sets are 8 x 8 pixels"),
        (["data.augment={flip: true}"], "data.augment: the embedded sets are 8 x 8 pixels"),
        (["model.arch=resnet18"], "model.arch: value is 'resnet18', but must be small_cnn"),
        (["model.arch=timm/resnet10t"], "must be small_cnn"),
        (
            ["data.outliers={dataset: folder, root: web}"],
            "data.outliers.dataset: beside digits there are photo_china and photo_flower only",
        ),
        (["data.coarse_ood=[{dataset: webvision, root: web}]"], "data.coarse_ood.0.dataset"),
        (["data.num_id_classes=11"], "must be at most 10, the classes of digits"),
        (
            ["objective={metric: train_energy_loss}"],
            "objective.metric: logit_mixoe never gives train_energy_loss; of its loss it gives",
        ),
        (
            ["objective=[{metric: val_auroc}, {metric: train_energy_loss}]"],
            "objective.also.0.metric: logit_mixoe never gives train_energy_loss",
        ),
        (
            ["objective={constraints: {train_energy_loss: {max: 1}}}"],
            "objective.constraints.train_energy_loss: logit_mixoe never gives",
        ),
        (
            ["objective={metric: train_outlier_loss}"],
            "only where outlier_weight is above 0, and outlier_weight is 0 in some trials or all",
        ),
        (
            ["objective={metric: train_outlier_loss}", "space={outlier_weight: {low: 0, high: 1}}"],
            "outlier_weight is 0 in some trials",
        ),
        (
            ["objective={metric: train_margin}", LR, *NO_MIXING],
            "mix_weight and consistency_weight and outlier_weight are 0",
        ),
        (
            ["objective={metric: train_mix_loss}", "space={method: {choices: [mixoe, baseline]}}"],
            "baseline never gives train_mix_loss",
        ),
        (
            ["fixed.consistency_weight=0", "space={consistency: {choices: [mse, kl]}}"],
            "space.consistency: changes nothing while consistency_weight is 0: take it out",
        ),
        (
            [*NO_MIXING, "space={mixing_alpha: {low: 1, high: 2}}"],
            "changes nothing while mix_weight and consistency_weight are 0",
        ),
        (
            ["space={outlier_ratio: {low: 0.001, high: 0.01}}"],
            "space.outlier_ratio: changes nothing: beside 32 images every value means 2 outliers",
        ),
        (
            ["space={outlier_ratio: {choices: [1, 1.01]}}"],
            "changes nothing: beside 32 images every value means 32 outliers",
        ),
        (["space={lr: {choices: [1e-9, 0.1]}}"], "must be at least train.min_lr, 1e-06"),
        (
            [
                "space={method: {choices: [mixoe, baseline]}, baseline.lr: {low: 1e-9, high: 1}}",
            ],
            "space.baseline.lr.low: value is 1e-09, but must be at least train.min_lr",
        ),
    ],
)
def test_what_contradicts_or_changes_nothing_is_refused(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    assert said in problem(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.outliers={dataset: photo_china}"],
            "photo_china is embedded, 8 x 8 pixels: it goes with digits only",
        ),
        (
            ["model.arch=vit_b_16", "data.crop=100"],
            "data.crop: value is 100, but must be a multiple of 16 for vit_b_16",
        ),
        (
            ["model.arch=vit_b_16", "data.resize=500"],
            "data.resize: value is 500, but must be a multiple of 16",
        ),
        (["data.num_id_classes=197"], "must be at most 196, the classes of stanford_cars"),
    ],
)
def test_so_is_what_image_files_do_not_allow(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    assert said in problem(tmp_path, *overrides, text=IMAGES)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective={metric: train_mix_loss}"],
        ["objective={metric: train_loss}"],
        ["objective={metric: train_outlier_loss}", "fixed.outlier_weight=0.1"],
        ["objective={metric: train_outlier_loss}", "space={outlier_weight: {low: 0.1, high: 1}}"],
        ["objective={metric: train_margin}", LR, *NO_MIXING, "fixed.outlier_weight=1"],
        [*NO_MIXING, "fixed.outlier_weight=1", "space={outlier_ratio: {low: 1, high: 2}}"],
        ["fixed.mix_weight=0", "space={mixing_alpha: {low: 1, high: 2}}"],
        ["space={consistency_weight: {low: 0, high: 1}, consistency: {choices: [mse, kl]}}"],
        ["space={outlier_ratio: {choices: [1]}}"],
        [
            "fixed.mixoe.mix_weight=0",
            "space={method: {choices: [mixoe, logit_mixoe]}, mixing_alpha: {low: 1, high: 2}}",
        ],
        ["data.val_coarse={dataset: photo_flower}"],
    ],
)
def test_what_only_looks_like_it_is_fine(tmp_path: Path, overrides: list[str]) -> None:
    assert loaded(tmp_path, *overrides).spec.name == "x"


@pytest.mark.parametrize(
    "overrides", [["model.arch=timm/resnet10t"], ["model.arch=vit_b_16", "data.crop=448"]]
)
def test_image_files_go_with_any_network(tmp_path: Path, overrides: list[str]) -> None:
    assert loaded(tmp_path, *overrides, text=IMAGES).spec.data.image_crop == 448


def test_a_method_of_ones_own_may_log_what_it_likes(tmp_path: Path) -> None:
    from lmoe_tune.spec import Declaration, Parameter

    own = Declaration("own", "mine", (Parameter("power", "float", 1.0, "how strong", low=0),))
    path = tmp_path / "x.yaml"
    path.write_text(
        "trainable: own.module:Own\ndata: {id: {dataset: digits}}\n"
        "space: {power: {low: 0, high: 1}}\nobjective: {metric: train_energy_loss}\n",
        encoding="utf-8",
    )

    found = load_spec(path, declarations=declarations(), resolve=lambda name, folder: own)

    assert found.spec.objective.metric == "train_energy_loss"


def test_what_a_spec_says_is_known_apart_from_what_was_filled_in(tmp_path: Path) -> None:
    found = loaded(tmp_path, "train.epochs=3", "data.val_coarse={dataset: photo_flower}")

    assert {"train.epochs", "data.id.dataset", "data.val_coarse.dataset"} <= found.given
    assert not {"train.lr", "data.outliers.dataset"} & found.given
