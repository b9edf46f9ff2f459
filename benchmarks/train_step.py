"""Seconds of a training step of Logit MixOE: three forwards in fp32 against every mode of ours, on a CPU.

    python benchmarks/train_step.py [--arch resnet18 resnet50] [--crop 112] [--rounds 5] [--out FILE]
    python benchmarks/train_step.py --arch resnet18 --crop 64 --batch 8 --rounds 1      # a first look

A step is forward, backward and optimizer on a batch of B images and B outliers (and their B mixtures) that lie in
memory already; `input_pipeline.py` has the rest.

    reference   a forward each for images, outliers and mixtures; fp32, torch's own memory format, torch.optim.SGD
    ours        lmoe_tune's objective and optimizer: `separate` (a forward each) or `joint` (one of all rows, as
                a search does it), channels last, fp32 or bf16

Before anything is timed, `separate` in fp32 must give the reference's loss and gradients, to rounding; how far the
other modes are from it is printed beside them (`joint` normalises over other rows, bf16 rounds). Modes take turns in
every round and make one step that is not timed; each figure is the median over the rounds, each ratio the median of
the rounds' ratios. Ours keeps freed memory, as a trial does; the reference has glibc's own thresholds.

A CPU without bf16 instructions emulates them, 15 times slower than fp32: a search takes fp32 there, and so does this
script, unless --emulated-bf16 is given.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import has_bf16, machine  # noqa: E402 (after the checkout is on the path)
from benchmarks.peers.published_protocol import (  # noqa: E402
    loss_of_three_forwards,
    optimizer_of,
)
from lmoe_tune.data.batches import Batch  # noqa: E402
from lmoe_tune.data.streams import EpochDraws  # noqa: E402
from lmoe_tune.model import build_model  # noqa: E402
from lmoe_tune.training.allocator import keep_freed_memory, return_freed_memory  # noqa: E402
from lmoe_tune.training.optimizer import NesterovSGD  # noqa: E402
from trainables import load_method  # noqa: E402

NUM_CLASSES = 90
LR = 1e-3
LAM_SEED = 0
MOST_STEPS = 10_000
LOSS_TOLERANCE, GRADIENT_TOLERANCE = (
    1e-5,
    1e-2,
)  # relative; of all gradients together, which rounding moves by 1e-3


@dataclass(frozen=True)
class Mode:
    """One way of ours to compute the step."""

    batch_norm: str
    channels_last: bool
    bf16: bool

    @property
    def name(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        return f"ours, {self.batch_norm}, {layout}, {'bf16' if self.bf16 else 'fp32'}"


MODES = tuple(
    Mode(batch_norm, channels_last, bf16)
    for bf16 in (False, True)
    for batch_norm, channels_last in (("separate", False), ("separate", True), ("joint", True))
)


class Reference:
    """The loop that people write."""

    name = "reference: three forwards, fp32"

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model = copy.deepcopy(model).train()
        self.optimizer = optimizer_of(self.model, LR)
        self.batch = batch
        self.draws, self.number = draws_of(batch, torch.device("cpu")), 0

    def begin(self) -> None:
        """Memory as glibc keeps it once its thresholds have risen: those are their greatest values."""
        for option, value in (
            (-4, 65536),
            (-3, 32 << 20),
            (-1, 64 << 20),
        ):  # M_MMAP_MAX and _THRESHOLD, M_TRIM_
            ctypes.CDLL(None).mallopt(option, value)
        return_freed_memory()

    def lam(self) -> float:
        """That of the next step, on the host, as public code has it."""
        self.number += 1
        return float(self.draws.at(self.number).beta(1.0, per="batch")[0])

    def loss(self) -> Tensor:
        batch, lam = self.batch, self.lam()
        return loss_of_three_forwards(
            self.model, batch.images, batch.labels, batch.outliers, lam, mix=1.0, consistency=1.0
        )

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


class Ours:
    """The body of lmoe_tune's training loop."""

    def __init__(self, model: nn.Module, batch: Batch, mode: Mode) -> None:
        layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        self.name, self.mode = mode.name, mode
        self.model = copy.deepcopy(model).train().to(memory_format=layout)
        self.optimizer = NesterovSGD(self.model.parameters(), momentum=0.9, weight_decay=1e-5)
        images = (
            batch.images.contiguous(memory_format=layout),
            batch.outliers.contiguous(memory_format=layout),
        )
        self.batch = Batch(images[0], batch.labels, images[1], batch.pairs)
        method = load_method("logit_mixoe")
        params = method.declaration.resolve({"batch_norm": mode.batch_norm})
        self.objective = method.objective(params)
        self.draws, self.number = draws_of(batch, batch.images.device), 0

    def begin(self) -> None:
        keep_freed_memory()

    def loss(self) -> Tensor:
        with torch.autocast(self.batch.images.device.type, torch.bfloat16, enabled=self.mode.bf16):
            self.number += 1
            return self.objective.loss(self.model, self.batch, self.draws.at(self.number)).total

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step(LR)


Side = Reference | Ours


def draws_of(batch: Batch, device: torch.device) -> EpochDraws:
    """The same lam for every side in each step."""
    return EpochDraws(
        LAM_SEED, 1, num_steps=MOST_STEPS, num_slots=len(batch.outliers), device=device
    )


def make_batch(size: int, crop: int, device: str = "cpu") -> Batch:
    """Random images: the arithmetic does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    images, outliers = torch.randn(2, size, 3, crop, crop, generator=generator)
    labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
    return Batch(
        images.to(device), labels.to(device), outliers.to(device), torch.arange(size, device=device)
    )


def make_sides(arch: str, batch: Batch, modes: Sequence[Mode] = MODES) -> list[Side]:
    """Reference first; all from the same weights."""
    torch.manual_seed(0)
    model = build_model(arch, NUM_CLASSES, 3, batch.images.shape[-1]).to(batch.images.device)
    return [Reference(model, batch), *(Ours(model, batch, mode) for mode in modes)]


def gradients(side: Side) -> tuple[float, Tensor]:
    """The first step's loss and gradients, without the step."""
    state = copy.deepcopy(side.model.state_dict())
    side.model.zero_grad()
    loss = side.loss()
    loss.backward()
    found = torch.cat(
        [param.grad.flatten() for param in side.model.parameters() if param.grad is not None]
    )
    side.model.zero_grad()
    side.model.load_state_dict(state)  # BatchNorm's statistics have moved
    side.number = 0
    return float(loss.detach()), found


def differences(sides: list[Side]) -> dict[str, tuple[float, float]]:
    """Relative difference of loss and gradients from the reference's; refuses another `separate` in fp32.

    The refusal compares within one memory format: another one rounds otherwise, and a deep network with random
    weights makes up to 3% of that in its gradients, with the reference's own formula as well.
    """
    wanted_loss, wanted = gradients(sides[0])
    moved = copy.deepcopy(sides[0])
    moved.model.to(memory_format=torch.channels_last)
    moved_loss, moved_gradient = gradients(moved)
    found = {}
    for side in sides[1:]:
        loss, gradient = gradients(side)
        apart = (
            abs(loss - wanted_loss) / abs(wanted_loss),
            float((gradient - wanted).norm() / wanted.norm()),
        )
        found[side.name] = apart
        if not isinstance(side, Ours) or side.mode.batch_norm != "separate" or side.mode.bf16:
            continue  # other maths

        same = (moved_loss, moved_gradient) if side.mode.channels_last else (wanted_loss, wanted)
        apart = (
            abs(loss - same[0]) / abs(same[0]),
            float((gradient - same[1]).norm() / same[1].norm()),
        )
        if apart[0] > LOSS_TOLERANCE or apart[1] > GRADIENT_TOLERANCE:
            raise SystemExit(
                f"{side.name}: loss and gradients are {apart} from the reference's; timing says nothing"
            )
    return found


def timed(
    sides: list[Side], rounds: int, steps: int, wait: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of a step by side, one figure a round; another side begins in every round."""
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            side.begin()
            side.step()
            wait()
            started = time.perf_counter()
            for _ in range(steps):
                side.step()
            wait()
            times[side.name].append((time.perf_counter() - started) / steps)
    return times


def table(
    sides: list[Side], apart: dict[str, tuple[float, float]], times: dict[str, list[float]]
) -> list[str]:
    reference = times[sides[0].name]
    lines = [f"{'':44}{'s a step':>10}{'ratio':>9}{'loss differs':>15}{'gradients differ':>18}"]
    for side in sides:
        found = times[side.name]
        ratio = statistics.median(slow / fast for slow, fast in zip(reference, found, strict=True))
        rest = (
            f"{apart[side.name][0]:15.1e}{apart[side.name][1]:18.1e}" if side.name in apart else ""
        )
        lines.append(f"{side.name:44}{statistics.median(found):10.3f}{ratio:7.2f} x{rest}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--crop", type=int, default=112)
    parser.add_argument(
        "--batch", type=int, default=16, help="images; as many outliers come on top"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of a side in a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--emulated-bf16", action="store_true", help="bf16 as well on a CPU that has to emulate it"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = ["training step on a CPU", *machine("torch", "torchvision")]
    modes = [mode for mode in MODES if not mode.bf16 or has_bf16() or options.emulated_bf16]
    if len(modes) < len(MODES):
        lines.append("bf16 is left out: this CPU would emulate it")
    for arch in options.arch:
        batch = make_batch(options.batch, options.crop)
        sides = make_sides(arch, batch, modes)
        apart = differences(sides)
        times = timed(sides, options.rounds, options.steps)
        size = f"{options.batch} + {options.batch} images of {options.crop} x {options.crop}"
        lines += ["", f"{arch}, {size}, {options.threads} threads, {options.rounds} rounds"]
        lines += table(sides, apart, times)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
