from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from lmoe_tune import evaluation
from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation import (
    aupr_in,
    aupr_out,
    auroc,
    calibration_errors,
    outputs,
    resampled_test_metrics,
    score,
    threshold_at_tpr,
    tnr_at_tpr,
    validation_metrics,
)
from lmoe_tune.evaluation.pytorch_ood import detector_score
from lmoe_tune.spec import METRICS

SHAPES = [
    (1, 1),
    (1, 5),
    (5, 1),
    (2, 3),
    (19, 20),
    (20, 20),
    (21, 40),
    (100, 7),
    (333, 333),
    (1000, 1000),
]
KINDS = ("random", "separated", "reversed", "tied", "two values", "constant")


def scores(kind: str, num_id: int, num_ood: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([seed, num_id, num_ood])
    shift = {"separated": 2.0, "reversed": -2.0}.get(kind, 0.3)
    found = rng.normal(shift, 1, num_id), rng.normal(0, 1, num_ood)
    if kind == "tied":
        found = tuple(np.round(2 * values) for values in found)
    elif kind == "two values":
        found = tuple((values > 0).astype(float) for values in found)
    elif kind == "constant":
        found = tuple(np.zeros_like(values) for values in found)
    return torch.tensor(found[0]), torch.tensor(found[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_metrics_are_those_of_scikit_learn(kind: str) -> None:
    for (num_id, num_ood), seed in itertools.product(SHAPES, range(3)):
        id_scores, ood_scores = scores(kind, num_id, num_ood, seed)
        truth = [1] * num_id + [0] * num_ood
        values = torch.cat([id_scores, ood_scores]).numpy()
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        assert auroc(id_scores, ood_scores) == pytest.approx(
            roc_auc_score(truth, values), abs=1e-12
        )
        assert tnr_at_tpr(id_scores, ood_scores) == pytest.approx(
            1 - fpr[tpr >= 0.95][0], abs=1e-12
        )
        expected_in = average_precision_score(truth, values)
        expected_out = average_precision_score(truth, -values, pos_label=0)
        assert aupr_in(id_scores, ood_scores) == pytest.approx(expected_in, abs=1e-12)
        assert aupr_out(id_scores, ood_scores) == pytest.approx(expected_out, abs=1e-12)


def test_auroc_by_hand() -> None:
    """Of the six pairs three are won, two tied and one lost."""
    id_scores, ood_scores = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 2.0])
    assert auroc(id_scores, ood_scores) == (3 + 2 / 2) / 6


def test_auroc_of_all_ties_is_one_half() -> None:
    assert auroc(torch.zeros(7), torch.zeros(3)) == 0.5


def test_auroc_of_perfect_and_of_perfectly_wrong_scores() -> None:
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == 0.0


def test_auroc_of_the_two_sides_exchanged_is_its_complement() -> None:
    id_scores, ood_scores = scores("tied", 40, 30)
    assert auroc(id_scores, ood_scores) + auroc(ood_scores, id_scores) == pytest.approx(
        1, abs=1e-15
    )


def test_the_order_of_the_scores_does_not_matter() -> None:
    id_scores, ood_scores = scores("tied", 40, 30)
    assert auroc(id_scores.flip(0), ood_scores.flip(0)) == auroc(id_scores, ood_scores)
    assert tnr_at_tpr(id_scores.flip(0), ood_scores.flip(0)) == tnr_at_tpr(id_scores, ood_scores)


def test_scores_may_be_views_that_are_not_contiguous() -> None:
    table = torch.tensor([[3.0, 1.0], [1.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    assert auroc(table[:, 0], table[:, 1]) == auroc(table[:, 0].clone(), table[:, 1].clone())


def test_an_empty_set_is_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="empty"):
        auroc(torch.zeros(0), torch.zeros(3))
    with pytest.raises(AssertionError, match="empty"):
        threshold_at_tpr(torch.zeros(0))


@pytest.mark.parametrize(
    ("num_id", "kept"),
    [(1, 1), (2, 2), (19, 19), (20, 19), (21, 20), (40, 38), (100, 95), (101, 96)],
)
def test_the_threshold_is_the_highest_that_keeps_enough(num_id: int, kept: int) -> None:
    values = torch.arange(num_id, dtype=torch.float64)
    assert threshold_at_tpr(values) == num_id - kept


def test_scores_equal_to_the_threshold_are_kept() -> None:
    """Twenty scores from 0 to 19: the threshold is 1, and an outlier of exactly 1 counts as accepted."""
    id_scores = torch.arange(20, dtype=torch.float64)
    assert tnr_at_tpr(id_scores, torch.tensor([0.0, 0.5, 1.0, 7.0], dtype=torch.float64)) == 0.5


def test_tnr_of_all_ties_is_zero() -> None:
    assert tnr_at_tpr(torch.zeros(10), torch.zeros(5)) == 0


def test_another_true_positive_rate_can_be_asked_for() -> None:
    id_scores = torch.arange(10, dtype=torch.float64)
    assert threshold_at_tpr(id_scores, 0.5) == 5
    assert tnr_at_tpr(id_scores, torch.tensor([4.0, 5.0]), 0.5) == 0.5


LOGITS = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, math.log(6), math.log(3)]])


def test_the_scores_by_hand() -> None:
    assert score(LOGITS, "msp").tolist() == pytest.approx([2 / 4, 6 / 10], rel=1e-6)
    assert score(LOGITS, "max_logit").tolist() == pytest.approx(
        [math.log(2), math.log(6)], rel=1e-6
    )
    assert score(LOGITS, "energy").tolist() == pytest.approx([math.log(4), math.log(10)], rel=1e-6)


@pytest.mark.parametrize("name", ["msp", "max_logit", "energy"])
def test_a_score_is_higher_where_the_network_is_surer(name) -> None:
    sure, unsure = score(torch.tensor([[9.0, 0.0, 0.0], [0.2, 0.0, 0.1]]), name).tolist()
    assert sure > unsure


def test_confident_probabilities_do_not_collapse_into_ties() -> None:
    logits = torch.tensor([[20.0, 0.0], [21.0, 0.0], [25.0, 0.0]])
    assert len(set(score(logits, "msp").tolist())) == 3
    assert len(set(logits.softmax(1).amax(1).tolist())) == 1, "which they would in fp32"


@pytest.mark.parametrize("name", ["msp", "max_logit", "energy"])
def test_large_logits_give_finite_scores(name) -> None:
    assert score(torch.tensor([[1e4, -1e4], [-1e4, -1e4]]), name).isfinite().all()


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="score is 'odin', but must be msp, max_logit or energy"):
        score(LOGITS, "odin")  # type: ignore[arg-type]


NAMED = ("_msp", "_maxlogit", "_energy")


def test_every_epoch_has_auroc_and_fpr95_of_all_three_scores() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(20, dtype=torch.int64)
    found = validation_metrics(outputs(logits, "energy"), labels, num_fine=17)
    for name, end in evaluation.SCORES.items():
        scores = score(logits, name)
        for novelty, ood in (("fine", scores[20:37]), ("coarse", scores[37:])):
            assert found[f"val_{novelty}_auroc_{end}"] == auroc(scores[:20], ood)
            tnr95 = tnr_at_tpr(scores[:20], ood)
            assert found[f"val_{novelty}_fpr95_{end}"] == pytest.approx(1 - tnr95)
    assert found["val_fine_auroc"] == found["val_fine_auroc_energy"]
    assert found["val_fine_auroc_msp"] != found["val_fine_auroc_energy"]


def test_the_metrics_of_an_epoch_by_hand() -> None:
    """MaxLogit scores: in-distribution 4, 3; fine 3, 1, 5; coarse 0, 2. The second image's class is missed."""
    logits = [[4.0, 0], [3, 0], [3, 0], [1, 0], [0, 5], [0, -1], [2, 0]]
    found = validation_metrics(
        outputs(torch.tensor(logits), "max_logit"), labels=torch.tensor([0, 1]), num_fine=3
    )
    surer, less_sure = (
        math.exp(4) / (math.exp(4) + 1),
        math.exp(3) / (math.exp(3) + 1),
    )  # in the bins 15 and 15
    asked_for = {name: value for name, value in found.items() if not name.endswith(NAMED)}
    assert asked_for == pytest.approx(
        {
            "val_accuracy": 1 / 2,
            "val_ece": (surer + less_sure - 1) / 2,
            "val_fine_auroc": (3 + 1 / 2) / 6,
            "val_coarse_auroc": 1.0,
            "val_auroc": (3.5 / 6 + 1) / 2,
            "val_fine_tnr95": 1 / 3,
            "val_coarse_tnr95": 1.0,
            "val_fine_fpr95": 2 / 3,
            "val_coarse_fpr95": 0.0,
        }
    )
    assert set(found) == {name for name in METRICS if name.startswith("val_")}
    assert all(type(value) is float for value in found.values())


def test_without_outliers_there_is_nothing_coarse() -> None:
    found = validation_metrics(
        outputs(LOGITS.repeat(3, 1), "msp"), labels=torch.tensor([0, 1]), num_fine=4
    )
    assert found["val_auroc"] == found["val_fine_auroc"]
    assert not any("coarse" in name for name in found)


# --- precision and recall, calibration ---


def test_aupr_by_hand() -> None:
    """In order of the score: ID 3; a tie of ID 2 and OOD 2; OOD 1; ID 0."""
    id_scores, ood_scores = torch.tensor([3.0, 2.0, 0.0]), torch.tensor([2.0, 1.0])
    assert aupr_in(id_scores, ood_scores) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert aupr_out(id_scores, ood_scores) == pytest.approx(
        (1 / 2 + 2 / 4) / 2
    )  # from below: ID, OOD, then the tie


def test_aupr_of_all_ties_is_the_share_of_the_positives() -> None:
    assert aupr_in(torch.zeros(6), torch.zeros(2)) == 6 / 8
    assert aupr_out(torch.zeros(6), torch.zeros(2)) == 2 / 8


def ece_by_bins(logits: Tensor, labels: Tensor) -> float:
    """As the paper has it: bin by bin, the share of images times |accuracy - confidence|."""
    probabilities = logits.double().softmax(1).numpy()
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


def ece(logits: Tensor, labels: Tensor) -> float:
    found = outputs(logits, "msp")
    return calibration_errors(found.confidence, found.predicted == labels).item()


def test_the_calibration_error_is_that_of_its_definition() -> None:
    for num_images, num_classes, seed in itertools.product((1, 2, 30, 500), (2, 3, 20), range(5)):
        generator = torch.Generator().manual_seed(seed)
        logits = (1 + seed) * torch.randn(num_images, num_classes, generator=generator)
        labels = torch.randint(num_classes, (num_images,), generator=generator)
        assert ece(logits, labels) == pytest.approx(ece_by_bins(logits, labels), abs=1e-12)


def test_the_calibration_error_by_hand() -> None:
    """Two images at .8 confidence (bin 12) with one right, and two at .6 (bin 9) with both right."""
    logits = torch.tensor([[math.log(4), 0.0]] * 2 + [[math.log(1.5), 0.0]] * 2)
    assert ece(logits, torch.tensor([0, 1, 0, 0])) == pytest.approx(
        2 / 4 * abs(0.5 - 0.8) + 2 / 4 * abs(1 - 0.6)
    )


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not() -> None:
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert ece(logits, torch.tensor([0, 1])) == 0
    assert ece(logits, torch.tensor([1, 0])) == 1


# --- in one pass, without the logits ---


@pytest.mark.parametrize("name", ["msp", "max_logit", "energy"])
def test_chunks_of_logits_give_what_all_of_them_give(name) -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    whole, chunked = outputs(logits, name), outputs(iter(logits.split(16)), name)
    assert torch.equal(whole.scores, score(logits, name))
    assert torch.equal(whole.confidence, score(logits, "msp"))
    assert torch.equal(whole.predicted, logits.argmax(1))
    for field, value in vars(whole).items():
        assert torch.equal(value, getattr(chunked, field)), field
    assert whole.finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_noticed_in_any_chunk(bad: float) -> None:
    logits = torch.zeros(40, 6)
    logits[35, 2] = bad
    assert not outputs(logits.split(16), "max_logit").finite


def test_bf16_logits_are_scored_as_the_numbers_they_are() -> None:
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    for name in ("msp", "max_logit", "energy"):
        assert torch.equal(score(logits, name), score(logits.double(), name))


@pytest.mark.parametrize("kind", KINDS)
def test_many_resamples_at_once_are_each_measured_as_if_alone(kind: str) -> None:
    id_scores, ood_scores = scores(kind, 30, 20)
    rng = np.random.default_rng(0)
    ids = id_scores[torch.from_numpy(rng.integers(30, size=(7, 30)))]
    oods = ood_scores[torch.from_numpy(rng.integers(20, size=(7, 20)))]
    for measure in (auroc, tnr_at_tpr, aupr_in, aupr_out):
        alone = [measure(*pair).item() for pair in zip(ids, oods, strict=True)]
        assert measure(ids, oods).tolist() == pytest.approx(alone)


# --- the test split ---


def sealed(seed: int = 0, num_id: int = 60, shift: float = 1.0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_id) % 4
    logits_id = torch.randn(num_id, 4, generator=generator)
    logits_id[torch.arange(num_id), labels] += shift
    return {
        "logits_id": logits_id,
        "labels": labels,
        "logits_fine": torch.randn(50, 4, generator=generator),
        "logits_coarse": {
            "birds": 0.5 * torch.randn(40, 4, generator=generator),
            "planes": 2 * torch.randn(30, 4, generator=generator),
        },
    }


def test_the_test_metrics_are_those_of_each_set_and_their_means() -> None:
    sets = sealed()
    found = evaluation.test_metrics(**sets, score="energy")
    id_scores, fine = score(sets["logits_id"], "energy"), score(sets["logits_fine"], "energy")
    coarse = {name: score(logits, "energy") for name, logits in sets["logits_coarse"].items()}
    expected = {
        "test_accuracy": (sets["logits_id"].argmax(1) == sets["labels"]).double().mean().item(),
        "test_ece": ece(sets["logits_id"], sets["labels"]),
        "test_coarse_birds_auroc": auroc(id_scores, coarse["birds"]).item(),
        "test_coarse_planes_auroc": auroc(id_scores, coarse["planes"]).item(),
    }
    for name, measure in {
        "auroc": auroc,
        "tnr95": tnr_at_tpr,
        "aupr_in": aupr_in,
        "aupr_out": aupr_out,
    }.items():
        expected[f"test_fine_{name}"] = measure(id_scores, fine).item()
        expected[f"test_coarse_{name}"] = (
            sum(measure(id_scores, of).item() for of in coarse.values()) / 2
        )
    expected["test_auroc"] = (expected["test_fine_auroc"] + expected["test_coarse_auroc"]) / 2
    assert found == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for value in found.values())


def test_an_empty_set_is_left_out() -> None:
    sets = sealed()
    nothing = torch.zeros(0, 4)
    fine = evaluation.test_metrics(**sets | {"logits_coarse": {}}, score="msp")
    assert fine["test_auroc"] == fine["test_fine_auroc"]
    assert not any("coarse" in name for name in fine)
    coarse = evaluation.test_metrics(**sets | {"logits_fine": nothing}, score="msp")
    assert coarse["test_auroc"] == coarse["test_coarse_auroc"]
    known = evaluation.test_metrics(
        **sets | {"logits_fine": nothing, "logits_coarse": {}}, score="msp"
    )
    assert set(known) == {"test_accuracy", "test_ece"}


@pytest.mark.parametrize("with_fine", [True, False])
def test_what_is_kept_of_the_logits_gives_the_same_metrics_and_resamples(with_fine: bool) -> None:
    sets = sealed()
    if not with_fine:
        sets["logits_fine"] = torch.zeros(0, 4)
    coarse = {
        f"coarse_{name}": score(logits, "energy") for name, logits in sets["logits_coarse"].items()
    }
    scores = {
        "id": score(sets["logits_id"], "energy"),
        "fine": score(sets["logits_fine"], "energy"),
        **coarse,
    }
    probabilities = sets["logits_id"].double().softmax(dim=1)
    certainty = probabilities.amax(dim=1), probabilities.argmax(dim=1) == sets["labels"]
    found = evaluation.metrics_of_scores(scores, *certainty)
    assert found == evaluation.test_metrics(**sets, score="energy")
    resampled = evaluation.resampled_metrics_of_scores(scores, *certainty, num_resamples=50, seed=3)
    expected = resampled_test_metrics(**sets, score="energy", num_resamples=50, seed=3)
    assert resampled.keys() == expected.keys()
    for name, values in expected.items():
        assert (resampled[name] == values).all(), name


def test_resamples_have_every_metric_around_its_value() -> None:
    sets = sealed()
    found = resampled_test_metrics(**sets, score="msp", num_resamples=400)
    exact = evaluation.test_metrics(**sets, score="msp")
    assert list(found) == list(exact)
    for name, values in found.items():
        assert values.shape == (400,)
        low, high = np.percentile(values, [0.05, 99.95])
        assert (
            low <= exact[name] <= high or name == "test_ece"
        )  # which is biased upwards by resampling


def test_the_interval_of_the_accuracy_is_the_binomial_one() -> None:
    sets = sealed(num_id=200)
    accuracies = resampled_test_metrics(**sets, score="msp", num_resamples=1500)["test_accuracy"]
    p = evaluation.test_metrics(**sets, score="msp")["test_accuracy"]
    assert accuracies.std() == pytest.approx(math.sqrt(p * (1 - p) / 200), rel=0.05)
    low, high = np.percentile(accuracies, [2.5, 97.5])
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(p * (1 - p) / 200), rel=0.08)


def test_the_bootstrap_spread_of_auroc_is_that_of_new_samples() -> None:
    """Against new draws from the same two distributions."""
    rng = np.random.default_rng(0)
    drawn = [torch.from_numpy(rng.normal(shift, 1, (600, 80))) for shift in (1, 0)]
    truth = auroc(*drawn).numpy().std()
    logits = [torch.stack([values[0], -values[0]], 1).float() for values in drawn]
    labels = torch.zeros(80, dtype=torch.int64)
    resampled = resampled_test_metrics(
        logits[0], labels, logits[1], {}, lambda z: z[:, 0], num_resamples=600
    )
    assert resampled["test_auroc"].std() == pytest.approx(truth, rel=0.2)


def test_resampling_is_repeatable_and_the_same_images_for_every_model() -> None:
    """The same model's scores under a monotone change keep every AUROC, resample by resample."""
    sets = sealed()
    found, again = (
        resampled_test_metrics(**sets, score="msp", num_resamples=50, seed=3) for _ in range(2)
    )
    stretched = resampled_test_metrics(
        **sets, score=lambda logits: score(logits, "msp") ** 3, num_resamples=50, seed=3
    )
    other = resampled_test_metrics(**sets, score="msp", num_resamples=50, seed=4)
    for name, values in found.items():
        assert np.array_equal(values, again[name])
        assert np.allclose(values, stretched[name])
        assert not np.array_equal(values, other[name])


def test_the_resamples_of_one_set_do_not_hang_on_the_other_sets() -> None:
    sets = sealed()
    fewer = sets | {"logits_coarse": {"birds": sets["logits_coarse"]["birds"]}}
    with_both, with_one = (
        resampled_test_metrics(**of, score="msp", num_resamples=20) for of in (sets, fewer)
    )
    assert np.array_equal(with_both["test_fine_auroc"], with_one["test_fine_auroc"])
    assert np.array_equal(with_both["test_coarse_birds_auroc"], with_one["test_coarse_auroc"])


def test_resamples_do_not_depend_on_how_many_are_in_memory_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = sealed()
    at_once = resampled_test_metrics(**sets, score="msp", num_resamples=25)
    monkeypatch.setattr("lmoe_tune.evaluation.splits._ROWS_AT_ONCE", 400)
    in_parts = resampled_test_metrics(**sets, score="msp", num_resamples=25)
    for name, values in at_once.items():
        assert np.allclose(values, in_parts[name], rtol=0, atol=1e-12), name


# --- pytorch-ood ---


@pytest.mark.slow  # imports pytorch-ood and torchvision
@pytest.mark.timeout(180)
def test_the_detectors_of_pytorch_ood_are_scores() -> None:
    pytest.importorskip("pytorch_ood")
    sets = sealed()
    logits, labels = sets["logits_id"], sets["labels"]
    for theirs, ours in {
        "MaxSoftmax": "msp",
        "MaxLogit": "max_logit",
        "EnergyBased": "energy",
    }.items():
        torch.testing.assert_close(detector_score(theirs)(logits), score(logits, ours))
    p = logits.double().softmax(1)
    torch.testing.assert_close(detector_score("Entropy")(logits), (p * p.log()).sum(1))
    for name in ("Entropy", "GEN", "KLMatching", "TemperatureScaling", "OpenMax"):
        metrics = evaluation.test_metrics(**sets, score=detector_score(name, logits, labels))
        assert all(math.isfinite(value) for value in metrics.values()), name
    assert not torch.equal(detector_score("GEN", gamma=2.0)(logits), detector_score("GEN")(logits))
    with pytest.raises(
        UsageError, match="no logits detector 'Mahalanobis'; there are EnergyBased, "
    ):
        detector_score("Mahalanobis")
    with pytest.raises(UsageError, match="KLMatching must be fitted"):
        detector_score("KLMatching")


def test_without_pytorch_ood_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_ood", None)
    with pytest.raises(UsageError, match=r"pip install 'lmoe-tune\[pytorch-ood\]'"):
        detector_score("GEN")
