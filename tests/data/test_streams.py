from __future__ import annotations

import numpy as np
import pytest
import torch

from lmoe_tune.data.streams import EpochDraws, generator_of, slot_numbers

CPU = torch.device("cpu")


def draws(seed: int = 0, epoch: int = 1, *, num_steps: int = 7, num_slots: int = 5) -> EpochDraws:
    return EpochDraws(seed, epoch, num_steps=num_steps, num_slots=num_slots, device=CPU)


def test_streams_seeds_and_places_each_have_numbers_of_their_own() -> None:
    keys = [
        (seed, stream, *place)
        for seed in (0, 1)
        for stream in ("image order", "outlier order")
        for place in ((1,), (2,), (1, 2), (2, 1))
    ]
    first = {generator_of(*key).integers(2**62) for key in keys}
    assert len(first) == len(keys)
    assert first == {generator_of(*key).integers(2**62) for key in keys}


@pytest.mark.parametrize("width", [1, 3])
def test_a_slot_has_the_same_numbers_however_many_come_after_it(width: int) -> None:
    few, many = (
        slot_numbers(3, "x", 2, num_steps=7, num_slots=slots, width=width) for slots in (4, 9)
    )
    assert few.shape == (7, 4, width) and many.shape == (7, 9, width)
    assert np.array_equal(few, many[:, :4])


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_lambda_of_a_slot_does_not_depend_on_the_number_of_slots(per: str) -> None:
    for step in range(7):
        few = draws(num_slots=2).at(step).beta(0.3, per=per)
        many = draws(num_slots=6).at(step).beta(0.3, per=per)
        assert torch.equal(few, many[:2])


def test_one_number_for_the_batch_is_that_of_its_first_slot() -> None:
    epoch = draws()
    for step in range(7):
        step_draws = epoch.at(step)
        for of_batch, of_samples in (
            (step_draws.beta(0.7, per="batch"), step_draws.beta(0.7, per="sample")),
            (step_draws.uniforms("box", 2, per="batch"), step_draws.uniforms("box", 2)),
        ):
            assert of_batch.shape == of_samples.shape
            assert (of_batch == of_samples[0]).all()


def test_lambdas_of_two_alphas_lie_in_the_same_order() -> None:
    small, large = (draws(num_slots=400).at(2).beta(alpha) for alpha in (0.3, 3.0))
    assert torch.equal(small.argsort(), large.argsort())


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (1.0, 1.0), (10.0, 10.0), (2.0, 0.5)])
def test_lambda_follows_a_beta_distribution(a: float, b: float) -> None:
    lam = draws(num_steps=1, num_slots=40_000).at(0).beta(a, b)
    mean, total = a / (a + b), a + b
    assert lam.dtype == torch.float32
    assert lam.min() >= 0 and lam.max() <= 1
    assert lam.mean().item() == pytest.approx(mean, abs=0.01)
    assert lam.var().item() == pytest.approx(mean * (1 - mean) / (total + 1), rel=0.03)


def test_uniform_numbers_are_below_one() -> None:
    numbers = draws(num_slots=20_000).at(3).uniforms("noise", 2)
    assert numbers.shape == (20_000, 2) and numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1


def test_names_steps_epochs_and_seeds_differ_and_repeat() -> None:
    def first(seed: int = 0, epoch: int = 1, step: int = 0, name: str = "lam") -> float:
        return draws(seed, epoch).at(step).beta(1.0, name=name)[0].item()

    found = [first(), first(seed=1), first(epoch=2), first(step=1), first(name="other")]
    assert len(set(found)) == 5
    assert first() == found[0]


def test_a_methods_generator_is_that_of_its_step_and_name() -> None:
    epoch = draws()
    found = [epoch.at(step).generator(name).random() for step in (0, 1) for name in ("a", "b")]
    assert len(set(found)) == 4
    assert draws().at(1).generator("b").random() == found[-1]


def test_torch_is_seeded_for_each_step_whatever_ran_before() -> None:
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        epoch = draws()
        for step in (3, 4):
            epoch.seed_torch(step)
            found.append(torch.rand(1).item())
    assert found[:2] == found[2:]
    assert found[0] != found[1]


def test_without_outliers_there_are_no_numbers_to_draw() -> None:
    step = draws(num_slots=0).at(0)
    assert step.beta(1.0, per="batch").shape == step.beta(1.0).shape == (0,)
    assert step.uniforms("box", 2).shape == (0, 2)
