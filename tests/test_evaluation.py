from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from lmoe_tune.evaluation import accuracy, auroc, score, threshold_at_tpr, tnr_at_tpr, validation_metrics
from lmoe_tune.spec import METRICS

SHAPES = [(1, 1), (1, 5), (5, 1), (2, 3), (19, 20), (20, 20), (21, 40), (100, 7), (333, 333), (1000, 1000)]
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
@pytest.mark.parametrize(("num_id", "num_ood"), SHAPES)
def test_auroc_and_tnr95_are_those_of_scikit_learn(kind: str, num_id: int, num_ood: int) -> None:
    for seed in range(3):
        id_scores, ood_scores = scores(kind, num_id, num_ood, seed)
        truth = [1] * num_id + [0] * num_ood
        values = torch.cat([id_scores, ood_scores]).numpy()
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        assert auroc(id_scores, ood_scores) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
        assert tnr_at_tpr(id_scores, ood_scores) == pytest.approx(1 - fpr[tpr >= 0.95][0], abs=1e-12)


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
    assert auroc(id_scores, ood_scores) + auroc(ood_scores, id_scores) == pytest.approx(1, abs=1e-15)


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
    ("num_id", "kept"), [(1, 1), (2, 2), (19, 19), (20, 19), (21, 20), (40, 38), (100, 95), (101, 96)]
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
    assert score(LOGITS, "max_logit").tolist() == pytest.approx([math.log(2), math.log(6)], rel=1e-6)
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


def test_accuracy_by_hand() -> None:
    assert accuracy(torch.tensor([[1.0, 0], [0, 1], [0, 1], [2, 1]]), torch.tensor([0, 1, 0, 0])) == 0.75


def test_the_metrics_of_an_epoch_by_hand() -> None:
    """MaxLogit scores: in-distribution 4, 3; fine 3, 1, 5; coarse 0, 2."""
    found = validation_metrics(
        id_logits=torch.tensor([[4.0, 0], [3, 0]]),
        labels=torch.tensor([0, 1]),
        fine_logits=torch.tensor([[3.0, 0], [1, 0], [0, 5]]),
        coarse_logits=torch.tensor([[0.0, -1], [2, 0]]),
        score_name="max_logit",
    )
    assert found == pytest.approx(
        {
            "val_accuracy": 1 / 2,
            "val_fine_auroc": (3 + 1 / 2) / 6,
            "val_coarse_auroc": 1.0,
            "val_auroc": (3.5 / 6 + 1) / 2,
            "val_fine_tnr95": 1 / 3,
            "val_coarse_tnr95": 1.0,
        }
    )
    assert set(found) == {name for name in METRICS if name.startswith("val_")}
