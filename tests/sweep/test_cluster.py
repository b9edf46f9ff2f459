from __future__ import annotations

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Resources
from lmoe_tune.sweep.cluster import Cluster


@pytest.mark.parametrize(
    ("cpus", "gpus", "cpu", "gpu", "slots"),
    [
        (2, 0, 1, 0, 2),
        (7, 0, 2, 0, 3),
        (1, 0, 0.5, 0, 2),
        (1, 0, 0.1, 0, 10),
        (0.3, 0, 0.1, 0, 3),  # 0.3 / 0.1 is 2.9999999999999996
        (16, 1, 4, 0.5, 2),
        (16, 1, 4, 1, 1),
        (64, 8, 4, 2, 4),
        (64, 1, 1, 0.1, 10),
        (64, 2, 1, 0.3, 6),  # three fit on one GPU; what is left of each cannot be joined
        (64, 3, 1, 0.6, 3),
        (3, 8, 1, 1, 3),
    ],
)
def test_as_many_trials_run_at_a_time_as_fit(
    cpus: float, gpus: float, cpu: float, gpu: float, slots: int
) -> None:
    cluster = Cluster(cpus=cpus, gpus=gpus, local=True)
    assert cluster.slots(Resources(cpu=float(cpu), gpu=float(gpu)), None) == slots


@pytest.mark.parametrize(("max_concurrent", "slots"), [(1, 1), (3, 3), (100, 8)])
def test_a_bound_on_the_slots_only_lowers_them(max_concurrent: int, slots: int) -> None:
    assert Cluster(cpus=8, gpus=0, local=True).slots(Resources(), max_concurrent) == slots


@pytest.mark.parametrize(
    ("cpu", "gpu", "said"),
    [
        (4.0, 0.0, "cpu 4 and gpu 0, but there are 2 CPUs and 1 GPUs"),
        (1.0, 2.0, "cpu 1 and gpu 2, but there are 2 CPUs and 1 GPUs"),
    ],
)
def test_where_not_even_one_fits_it_says_what_is_asked_for_and_what_there_is(
    cpu: float, gpu: float, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        Cluster(cpus=2, gpus=1, local=True).slots(Resources(cpu=cpu, gpu=gpu), None)
    assert "--set resources.cpu" in str(raised.value)


def test_a_share_of_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="0 GPUs"):
        Cluster(cpus=2, gpus=0, local=True).slots(Resources(gpu=0.5), None)
