from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lmoe_tune.placements import (
    Placements,
    mean_placements,
    placements_of,
    read_placements,
)
from lmoe_tune.records import PLACEMENTS_FILE

Scores = tuple[np.ndarray, dict[str, np.ndarray]]


def drawn(rng: np.random.Generator, shift: float = 1.0, num: int = 120) -> Scores:
    novel = {"fine": rng.normal(0, 1, num), "coarse": rng.normal(-1, 1, num // 2)}
    return rng.normal(shift, 1, num), novel


def like(rng: np.random.Generator, scores: Scores, noise: float, shift: float = 0.0) -> Scores:
    """Another model's scores of the same images."""
    known, novel = scores
    moved = {name: of + rng.normal(0, noise, len(of)) for name, of in novel.items()}
    return known + shift + rng.normal(0, noise, len(known)), moved


@pytest.mark.parametrize("digits", [1, 9])
def test_the_means_of_the_placements_are_the_aurocs_of_scikit_learn(digits: int) -> None:
    known, novel = drawn(np.random.default_rng(0))
    known = known.round(digits)  # with ties, and without
    novel = {name: of.round(digits) for name, of in novel.items()}
    found = placements_of(known, novel)
    expected = {
        name: roc_auc_score(np.r_[np.ones(len(known)), np.zeros(len(of))], np.r_[known, of])
        for name, of in novel.items()
    }
    assert found.auroc("val_fine_auroc") == pytest.approx(expected["fine"], abs=1e-12)
    assert found.auroc("val_coarse_auroc") == pytest.approx(expected["coarse"], abs=1e-12)
    assert found.auroc("val_auroc") == pytest.approx(sum(expected.values()) / 2, abs=1e-12)
    assert found.novel["fine"].mean() == pytest.approx(expected["fine"], abs=1e-12)


@pytest.mark.parametrize("metric", ["val_auroc", "val_fine_auroc", "val_coarse_auroc"])
def test_the_variance_of_a_difference_is_that_of_a_bootstrap_over_the_images(metric: str) -> None:
    rng = np.random.default_rng(1)
    first = drawn(rng)
    second = like(rng, first, 0.5)
    one, other = placements_of(*first), placements_of(*second)
    differences = []
    for _ in range(2000):
        known = rng.integers(len(first[0]), size=len(first[0]))
        chosen = {name: rng.integers(len(of), size=len(of)) for name, of in first[1].items()}
        pair = [
            placements_of(scores[known], {name: novel[name][chosen[name]] for name in novel})
            for scores, novel in (first, second)
        ]
        differences.append(pair[0].auroc(metric) - pair[1].auroc(metric))
    assert one.variance_of_difference(other, metric) == pytest.approx(np.var(differences), rel=0.15)


def test_the_variance_on_other_numbers_of_images_is_that_of_such_samples() -> None:
    rng = np.random.default_rng(3)

    def two(num: int) -> tuple[Placements, Placements]:
        scores = drawn(rng, num=num)
        return placements_of(*scores), placements_of(*like(rng, scores, 0.5, shift=0.1))

    few = [two(120) for _ in range(150)]
    sizes = {"known": 480, "fine": 480, "coarse": 240}
    expected = np.mean([a.variance_of_difference(b, "val_auroc", sizes) for a, b in few])
    many = [two(480) for _ in range(300)]
    measured = np.var([a.auroc("val_auroc") - b.auroc("val_auroc") for a, b in many])
    assert measured == pytest.approx(expected, rel=0.25)


def test_the_mean_over_models_is_image_by_image() -> None:
    rng = np.random.default_rng(4)
    scores = drawn(rng)
    several = [placements_of(*like(rng, scores, 0.5)) for _ in range(8)]
    mean = mean_placements(several)
    values = [one.auroc("val_auroc") for one in several]
    assert mean.auroc("val_auroc") == pytest.approx(np.mean(values))
    other = mean_placements([placements_of(*like(rng, scores, 0.5)) for _ in range(8)])
    single = several[0].variance_of_difference(several[1], "val_auroc")
    assert mean.variance_of_difference(other, "val_auroc") < single / 2


def test_models_that_are_equal_are_told_apart_in_one_of_twenty_cases() -> None:
    rng = np.random.default_rng(2)
    told_apart = 0
    for _ in range(600):
        truth = drawn(rng)
        one, other = (placements_of(*like(rng, truth, 0.7)) for _ in range(2))
        told_apart += not one.is_tied(other, "val_auroc")
    assert 0.03 <= told_apart / 600 <= 0.075


def test_a_model_that_is_clearly_better_is_told_apart_and_one_like_itself_is_not() -> None:
    rng = np.random.default_rng(3)
    first = drawn(rng)
    better = placements_of(*like(rng, first, 0.3, shift=1.0))
    one = placements_of(*first)
    assert not one.is_tied(better, "val_auroc")
    assert one.is_tied(one, "val_auroc")


def test_they_are_kept_and_read_again(tmp_path: Path) -> None:
    found = placements_of(*drawn(np.random.default_rng(0)))
    found.save(tmp_path)
    again = read_placements(tmp_path)
    assert again is not None
    assert again.is_alike(found)
    assert again.variance_of_difference(found, "val_auroc") == 0
    assert read_placements(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["empty", "other", "cut", "flipped"])
def test_a_damaged_file_of_them_counts_as_none(damage: str, tmp_path: Path) -> None:
    path = tmp_path / PLACEMENTS_FILE
    placements_of(*drawn(np.random.default_rng(0))).save(tmp_path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    content = {"empty": b"", "other": b"damaged", "cut": whole[:middle], "flipped": flipped}
    path.write_bytes(content[damage])
    assert read_placements(tmp_path) is None


def test_only_aurocs_of_what_is_there_can_be_compared() -> None:
    known, novel = drawn(np.random.default_rng(0))
    only_fine = placements_of(known, {"fine": novel["fine"], "coarse": np.zeros(0)})
    assert only_fine.can_compare("val_auroc") and only_fine.can_compare("val_fine_auroc")
    assert only_fine.auroc("val_auroc") == only_fine.auroc("val_fine_auroc")
    assert not only_fine.can_compare("val_coarse_auroc")
    assert not only_fine.can_compare("val_accuracy")
    assert not Placements({}, {}).can_compare("val_auroc")
    assert not placements_of(known[:1], novel).can_compare("val_auroc")
