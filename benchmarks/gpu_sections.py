"""The sections of `gpu.py`: each yields lines as soon as it knows them."""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_data import (
    Traffic,
    copy_bandwidth,
    matrix_flops,
    spec_of,
    synchronize,
    write_classes,
)
from benchmarks.machine import machine
from benchmarks.peers.published_protocol import (
    MEAN,
    STD,
    Photographs,
    loading_and_augmenting,
    loss_of_three_forwards,
)
from benchmarks.train_step import (
    MODES,
    Mode,
    Ours,
    Reference,
    Side,
    differences,
    gradients,
    make_batch,
    make_sides,
)
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.augment import NUM_DRAWN, Augmentation, augment, augmentation_of
from lmoe_tune.data.batches import Batch
from lmoe_tune.data.decoded_cache import CachedImages, DecodedCache, ImageFile
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.loaders import COPYING_THREADS, Crops, DeviceLoader, HostLoader, Loader
from lmoe_tune.model import build_model
from lmoe_tune.spec import AugmentSpec, Spec
from lmoe_tune.training.loop import EpochResult, train, validate
from lmoe_tune.training.memory import model_memory
from lmoe_tune.training.trial import run_trial, settings_of
from trainables import configured

CPU = torch.device("cpu")
FASTEST = Mode("joint", channels_last=True, bf16=True)
EXACT = Mode("separate", channels_last=True, bf16=False)
ROUNDS, STEPS = 5, 8
SMALL = {"arch": "resnet18", "crop": 64, "resize": 72}  # where something is compared with the CPU
SAME = 1e-2  # relative: what rounding may do to all gradients together
WORKER_S = 25.0  # at most, of a round of packing
TIMING = ("epoch_s", "images_per_s", "gpu_mem_peak_mb")


@dataclass(frozen=True)
class Bench:
    """What all sections share."""

    device: torch.device
    arch: str
    batch: int
    crop: int
    num_images: int
    folder: Path
    options: argparse.Namespace

    @classmethod
    def of(cls, options: argparse.Namespace, folder: Path) -> Bench:
        device = torch.device(options.device)
        return cls(
            device, options.arch, options.batch, options.crop, options.images, folder, options
        )

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def rounds(self) -> int:
        return ROUNDS if self.on_gpu else 1

    @property
    def steps(self) -> int:
        return STEPS if self.on_gpu else 1

    @property
    def small(self) -> dict[str, Any]:
        """Sizes at which the CPU keeps up."""
        return SMALL if self.on_gpu else {}

    @property
    def resize(self) -> int:
        return self.crop * 8 // 7

    @property
    def threads(self) -> int:
        """That decode and copy, and that torch computes with."""
        return len(os.sched_getaffinity(0)) if self.on_gpu else 1

    @cached_property
    def is_compiled(self) -> bool:
        """Whether this process has compiled the network; the section says so."""
        return False

    @cached_property
    def num_trained(self) -> int:
        """Images that a trial trains on; it sees as many outliers."""
        return len(load_search_data(self.spec("fp32").data, self.folder / "home").train)

    @cached_property
    def photographs(self) -> list[Path]:
        return write_classes(self.folder / "photographs", self.num_images)

    @cached_property
    def rows(self) -> CachedImages:
        """Some of the photographs, decoded."""
        cache = DecodedCache(self.folder / "cache", self.resize)
        files = [ImageFile(path) for path in self.photographs[: 16 * self.batch]]
        return cache.acquire(files, say=lambda text: None)

    def spec(self, precision: str, *, device: str | None = None, **changed: Any) -> Spec:
        sizes = {
            "arch": self.arch,
            "batch": self.batch,
            "crop": self.crop,
            "resize": self.resize,
            "threads": self.threads,
            "epochs": 2,
        }
        assert self.photographs, "there is something to train on"
        root = self.folder / "photographs"
        return spec_of(
            root, device=device or self.device.type, precision=precision, **(sizes | changed)
        )

    def environment(self) -> list[str]:
        lines = ["Logit MixOE on one device", *machine("torch", "torchvision", "numpy", "pydantic")]
        if self.on_gpu:
            major, minor = torch.cuda.get_device_capability()
            total = torch.cuda.mem_get_info()[1] / 1e9
            cudnn = torch.backends.cudnn.version()
            lines.append(
                f"{torch.cuda.get_device_name()}, {total:.0f} GB, capability {major}.{minor}, "
                f"CUDA {torch.version.cuda}, cuDNN {cudnn}"
            )
        lines.append(
            f"{self.arch}, {self.batch} + {self.batch} images of {self.crop} x {self.crop} on {self.device}"
        )
        return lines

    def section(self, name: str, seconds: float) -> Iterator[str]:
        torch.set_num_threads(self.threads)
        yield from SECTIONS[name](self, Budget(seconds))

    def free_memory(self) -> None:
        """Give it back; raises what torch raises where the device is lost."""
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        synchronize(self.device)

    def sides(self, modes: tuple[Mode, ...]) -> list[Side]:
        batch = make_batch(self.batch, self.crop, self.device.type)
        return make_sides(self.arch, batch, modes)

    def ours(self, mode: Mode = FASTEST) -> Ours:
        side = self.sides((mode,))[1]
        assert isinstance(side, Ours)
        return side


class Budget:
    """The time of a section; loops within it stop in time to say what they have found."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + 0.85 * seconds

    def part(self, share: float) -> Budget:
        """So much of what is left."""
        left = max(0.0, self._ends - time.monotonic())
        part = Budget(0.0)
        part._ends = time.monotonic() + share * left
        return part

    @property
    def left(self) -> float:
        return max(0.0, self._ends - time.monotonic())


# --- is it right


def correctness(bench: Bench, budget: Budget) -> Iterator[str]:
    strict_fp32()
    loaders: list[Loader] = [
        HostLoader(bench.rows, bench.device, threads=COPYING_THREADS),
        DeviceLoader(bench.rows, bench.device),
    ]
    host = augmented(HostLoader(bench.rows, CPU, threads=1), bench)
    expected = [images for images, _ in itertools.islice(host, 3)]
    for loader in loaders:
        pairs = zip(augmented(loader, bench), expected, strict=False)
        apart = max(float((found[0].cpu() - wanted).abs().max()) for found, wanted in pairs)
        yield f"batches of {type(loader).__name__}: {apart:.1e} from the CPU's at most"
        refuse(apart > 1e-3, "these are other images")

    sides = bench.sides((Mode("separate", channels_last=False, bf16=False), EXACT))
    for name, (of_loss, of_gradients) in differences(sides).items():
        yield f"{name}: loss {of_loss:.1e} and gradients {of_gradients:.1e} from the reference's"
    del sides

    found = {}
    for device in dict.fromkeys((CPU, bench.device)):
        batch = make_batch(bench.batch, bench.small.get("crop", bench.crop), device.type)
        ours = make_sides(bench.small.get("arch", bench.arch), batch, (EXACT,))[1]
        loss, gradient = gradients(ours)
        found[device.type] = (loss, gradient.cpu())
    (here, wanted), (there, gradient) = found["cpu"], found[bench.device.type]
    apart = float((gradient - wanted).norm() / wanted.norm())
    yield f"{bench.device} against the CPU: loss {abs(there - here) / here:.1e}, gradients {apart:.1e}"
    refuse(apart > SAME, "the device computes something else")

    yield from _a_trial_twice(bench)


def _a_trial_twice(bench: Bench) -> Iterator[str]:
    """Small, in each precision; on a GPU its metrics in fp32 must be near the CPU's."""
    for precision in ("fp32", "bf16"):
        first, second = (
            _small_trial(bench, precision, f"{precision}-{number}") for number in range(2)
        )
        metrics = {name: value for name, value in first[-1].items() if name.startswith("val_a")}
        yield f"a trial in {precision}: {', '.join(f'{k} {v:.4f}' for k, v in metrics.items())}"
        yield f"the same trial again: {'the same bits' if first == second else 'OTHER BITS'}"
        if precision == "fp32" and bench.on_gpu:
            on_cpu = _small_trial(bench, precision, "cpu", device="cpu")
            loss, wanted = first[-1]["train_loss"], on_cpu[-1]["train_loss"]
            apart = abs(loss - wanted) / wanted
            yield f"its training loss is {apart:.1e} from that on the CPU"
            refuse(apart > 0.05, "it trains to something else")


def _small_trial(
    bench: Bench, precision: str, name: str, *, device: str | None = None
) -> list[dict[str, float]]:
    """What a trial at sizes of the CPU measured, without what depends on the clock."""
    spec = bench.spec(precision, device=device, **bench.small)
    return [
        {metric: value for metric, value in epoch.items() if metric not in TIMING}
        for epoch in trial_of(bench, spec, f"trial-{name}")
    ]


def trial_of(bench: Bench, spec: Spec, name: str) -> Iterator[dict[str, float]]:
    """The metrics of each epoch of a trial as a search runs it, its checkpoints included."""
    method, params = configured(spec, {}, bench.folder)
    objective, home, folder = method.objective(params), bench.folder / "home", bench.folder / name
    for epoch in run_trial(spec, objective, params, home=home, folder=folder):
        yield epoch.metrics


def refuse(is_wrong: bool, what: str) -> None:
    if is_wrong:
        raise AssertionError(what)


def strict_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def torchs_defaults() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = True


# --- the step


def ceilings(bench: Bench, budget: Budget) -> Iterator[str]:
    found = _ceilings(bench, budget.left)
    for name, value in found.items():
        unit = "GB/s" if name == "copy" else "TFLOP/s"
        yield f"{name:24}{value / (1e9 if name == 'copy' else 1e12):10.2f} {unit}"


_known_ceilings: dict[str, float] = {}


def _ceilings(bench: Bench, seconds: float) -> dict[str, float]:
    """FLOP/s of matrix products, and bytes/s of a copy; measured once."""
    if _known_ceilings:
        return _known_ceilings

    side, num_bytes = (8192, 2 << 30) if bench.on_gpu else (512, 32 << 20)
    share = seconds / 4 if bench.on_gpu else 0.1
    kinds = {"bf16 products": (torch.bfloat16, False), "fp32 products": (torch.float32, False)}
    if bench.on_gpu:
        kinds["TF32 products"] = (torch.float32, True)
    for name, (dtype, tf32) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        _known_ceilings[name] = matrix_flops(bench.device, dtype, side, share)
    strict_fp32()
    _known_ceilings["copy"] = copy_bandwidth(bench.device, num_bytes, share)
    return _known_ceilings


def step(bench: Bench, budget: Budget) -> Iterator[str]:
    limits = _ceilings(bench, 4.0)
    modes = MODES if bench.on_gpu else tuple(mode for mode in MODES if not mode.bf16)
    sides = bench.sides(modes)
    reference, fastest = sides[0], sides[-1]

    torchs_defaults()
    loose = timed([reference, fastest], bench, budget.part(0.35))
    strict_fp32()
    times = timed([reference], bench, budget.part(0.3))
    base, strict = (statistics.median(found[reference.name]) for found in (loose, times))
    yield f"{'':44}{'s a step':>10}{'x defaults':>12}{'x strict':>10}{'of products':>13}{'of copying':>12}"

    def line(name: str, seconds: float) -> str:
        return f"{name:44}{seconds:10.4f}{base / seconds:10.2f} x{strict / seconds:8.2f} x"

    ours = statistics.median(loose[fastest.name])
    ours_limit = "bf16 products" if bench.on_gpu else "fp32 products"
    of_reference, of_ours = counted(reference), counted(fastest)
    for name, (flops, num_bytes), seconds, limit in (
        ("reference, torch's defaults", of_reference, base, "TF32 products"),
        ("reference, strict fp32", of_reference, strict, "fp32 products"),
        (fastest.name, of_ours, ours, ours_limit),
    ):
        of_products = flops / seconds / limits.get(limit, limits["fp32 products"])
        of_copying = num_bytes / seconds / limits["copy"]
        yield f"{line(name, seconds)}{of_products:13.1%}{of_copying:12.1%}"
    yield f"a step of ours: {of_ours[0] / 1e12:.2f} TFLOP, {of_ours[1] / 1e9:.0f} GB where nothing is fused"

    for side in reversed(sides[1:-1]):  # those in strict fp32 take longest
        if not budget.left:
            yield "no time for the other modes"
            return
        found = timed([side], bench, budget, rounds=1)[side.name]
        yield line(side.name, statistics.median(found))


def counted(side: Side) -> tuple[float, float]:
    """Floating-point operations, and bytes of traffic, of one step."""
    with FlopCounterMode(display=False) as flops:
        side.step()
    with Traffic() as traffic:
        side.step()
    return float(flops.get_total_flops()), float(traffic.bytes)


def timed(
    sides: Sequence[Side], bench: Bench, budget: Budget, *, rounds: int | None = None
) -> dict[str, list[float]]:
    """Seconds of a step by side, one figure a round; another side begins in every round.

    Ours keeps to deterministic algorithms, as a trial does; the reference has torch's default.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds or bench.rounds):
        if number and not budget.left:
            break
        turn = number % len(sides)
        for side in (*sides[turn:], *sides[:turn]):
            torch.backends.cudnn.deterministic = isinstance(side, Ours)
            side.step()
            bench.synchronize()
            started = time.perf_counter()
            for _ in range(bench.steps):
                side.step()
            bench.synchronize()
            times[side.name].append((time.perf_counter() - started) / bench.steps)
    return times


def compile(bench: Bench, budget: Budget) -> Iterator[str]:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(bench.folder / "compiled")
    torchs_defaults()
    mode = _mode(bench)
    eager, fast = bench.ours(mode), bench.ours(mode)
    fast.model, fast.name = compiled(fast.model), "compiled"
    yield f"compiled, first step: {_seconds_of_a_step(fast, bench):.1f} s"
    vars(bench)["is_compiled"] = True

    times = timed([eager, fast], bench, budget.part(0.5))
    before, after = (statistics.median(values) for values in times.values())
    yield f"{mode.name}: {before:.4f} s a step, compiled {after:.4f} s: {before / after:.2f} x"

    command = [*_command(bench), "--first-step"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    yield f"first step in another process, from the cache: {float(done.stdout.split()[-1]):.1f} s"


def first_step(bench: Bench) -> None:
    """Print the seconds of the first compiled step in a fresh process."""
    torchs_defaults()
    side = bench.ours(_mode(bench))
    side.model = compiled(side.model)
    print(_seconds_of_a_step(side, bench))


def compiled(model: nn.Module) -> nn.Module:
    """As a trial compiles it."""
    return cast(nn.Module, torch.compile(model, dynamic=False))


def _seconds_of_a_step(side: Ours, bench: Bench) -> float:
    started = time.perf_counter()
    side.step()
    bench.synchronize()
    return time.perf_counter() - started


def _mode(bench: Bench) -> Mode:
    """The mode that a search takes there."""
    return FASTEST if bench.on_gpu else EXACT


# --- the input


def input_(bench: Bench, budget: Budget) -> Iterator[str]:
    torchs_defaults()
    loaders: dict[str, Callable[[], Loader]] = {
        "disk": lambda: HostLoader(bench.rows, bench.device, threads=COPYING_THREADS),
        "device": lambda: DeviceLoader(bench.rows, bench.device),
    }
    side = bench.ours(_mode(bench))
    if bench.is_compiled:
        side.model = compiled(side.model)  # this process has the code
        side.step()
        yield "the steps are compiled"
    size = 2 * bench.batch
    for name, make in loaders.items():
        part, loader = budget.part(0.2 if name == "disk" else 0.25), make()
        stalls: list[float] = []
        moving_s: list[float] = []
        while not stalls or (part.left and len(stalls) < bench.rounds):
            still = steps_on(side, resident_batches(bench), bench)
            moving = steps_on(side, (images for images, _ in augmented(loader, bench)), bench)
            stalls.append(1 - still / moving)
            moving_s.append(moving)
        stall = max(0.0, statistics.median(stalls))
        rate = size / statistics.median(moving_s)
        yield f"data.cache: {name:8} {rate:8.0f} images/s, stall {stall:.1%}"
    del side

    for workers in dict.fromkeys((min(4, bench.threads), bench.threads)):
        rate = _reference_with_loader(bench, workers, budget.part(0.4))
        yield f"reference with torch's defaults, {workers} loader processes: {rate:6.0f} images/s"


def _reference_with_loader(bench: Bench, workers: int, budget: Budget) -> float:
    """Images a second, from files to weights, once the loader has filled its queue and that is used up."""
    torch.backends.cudnn.deterministic = False
    reference = bench.sides(())[0]
    assert isinstance(reference, Reference)
    size = 2 * bench.batch
    data = Photographs(bench.photographs, loading_and_augmenting(bench.resize, bench.crop))
    endless = RandomSampler(data, replacement=True, num_samples=size * 10_000)
    loader = DataLoader(
        data, size, sampler=endless, num_workers=workers, pin_memory=bench.on_gpu, drop_last=True
    )
    skipped = 2 * workers + 2  # what was prefetched before anybody measured
    started, counted_steps, labels = 0.0, 0, reference.batch.labels
    for number, images in enumerate(loader):
        if number == skipped:
            bench.synchronize()
            started = time.perf_counter()
        images = images.to(bench.device, non_blocking=True)
        reference.optimizer.zero_grad()
        loss_of_three_forwards(
            reference.model, images[: bench.batch], labels, images[bench.batch :], 0.5, mix=1.0, consistency=1.0,
        ).backward()  # fmt: skip
        reference.optimizer.step()
        counted_steps = number + 1 - skipped
        if counted_steps >= 2 and (not budget.left or counted_steps >= 5 * bench.steps):
            break
    bench.synchronize()
    return size * counted_steps / (time.perf_counter() - started)


def augmented(loader: Loader, bench: Bench) -> Iterator[tuple[Tensor, Augmentation]]:
    """Endless batches of images and outliers together, as a trial has them; always the same ones."""
    rng, size = np.random.default_rng(0), 2 * bench.batch
    drawn: list[Augmentation] = []

    def crops() -> Iterator[Crops]:
        for _ in range(2 * STEPS + 2):
            chosen = rng.choice(len(bench.rows), size, replace=size > len(bench.rows))
            drawn.append(_drawn(rng, bench))
            yield Crops(chosen, drawn[-1].tops.numpy(), drawn[-1].lefts.numpy())

    constants: tuple[Tensor, Tensor] | None = None
    for number, pixels in enumerate(loader.read(crops(), bench.crop)):
        constants = constants or _mean_and_std(pixels.device)
        yield augment(pixels, drawn[number], *constants), drawn[number]


def resident_batches(bench: Bench) -> Iterator[Tensor]:
    """The same augmentation, of pixels that lie on the device already."""
    rng, shape = np.random.default_rng(0), (2 * bench.batch, bench.crop, bench.crop, 3)
    pixels = torch.randint(256, shape, dtype=torch.uint8, device=bench.device)
    constants = _mean_and_std(bench.device)
    while True:
        yield augment(pixels, _drawn(rng, bench), *constants)


def _drawn(rng: np.random.Generator, bench: Bench) -> Augmentation:
    numbers = rng.random((2 * bench.batch, NUM_DRAWN))
    return augmentation_of(numbers, AugmentSpec(), side=bench.resize, crop=bench.crop)


def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    return 255 * torch.tensor(MEAN, device=device), 255 * torch.tensor(STD, device=device)


def steps_on(side: Ours, batches: Iterator[Tensor], bench: Bench) -> float:
    """Seconds a step of ours on these batches, after two that warm up."""
    started, num_steps = 0.0, 2 * bench.steps
    for number, images in enumerate(itertools.islice(batches, num_steps + 2)):
        if number == 2:
            bench.synchronize()
            started = time.perf_counter()
        side.batch = Batch(
            images[: bench.batch], side.batch.labels, images[bench.batch :], side.batch.pairs
        )
        side.step()
    bench.synchronize()
    return (time.perf_counter() - started) / num_steps


# --- an epoch


def epoch(bench: Bench, budget: Budget) -> Iterator[str]:
    before = 0.0
    for number, found in enumerate(_trial_epochs(bench, "epoch", epochs=4)):
        bench.synchronize()
        passed, before = time.perf_counter() - before, time.perf_counter()
        if not number:
            continue  # with the baseline, and cold
        steps = 2 * bench.num_trained / found["images_per_s"]
        yield (
            f"epoch {number + 1}: {passed:.2f} s, of which {steps:.2f} s steps ({found['images_per_s']:.0f} "
            f"images/s), {found['epoch_s'] - steps:.2f} s evaluation, and {passed - found['epoch_s']:.2f} s "
            "until the checkpoint is there"
        )
    images, _ = _epochs(bench)
    model = build_model(bench.arch, images.num_classes, 3, bench.crop)
    model.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in loop.train
    settings = settings_of(bench.spec(_precision(bench)), {})
    validate(model, images.source, settings, 1)
    started = time.perf_counter()
    validate(model, images.source, settings, 1)
    seconds = time.perf_counter() - started
    yield f"evaluation: {images.num_evaluated / seconds:.0f} images/s"


def _trial_epochs(bench: Bench, name: str, *, epochs: int) -> Iterator[dict[str, float]]:
    return trial_of(bench, bench.spec(_precision(bench), epochs=epochs), name)


@dataclass(frozen=True)
class Images:
    """The images of a search over the photographs, opened for the device."""

    data: SearchData
    source: ImageSource

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    @property
    def num_evaluated(self) -> int:
        return len(self.data.val) + len(self.data.val_fine) + len(self.data.val_coarse)


def _epochs(bench: Bench, **changed: Any) -> tuple[Images, Iterator[EpochResult]]:
    """Epochs without end of the shipped method at its defaults."""
    spec = bench.spec(_precision(bench), **changed)
    home = bench.folder / "home"
    data = load_search_data(spec.data, home)
    images = Images(data, ImageSource(data, bench.device, home, threads=bench.threads))
    method, params = configured(spec, {}, bench.folder)
    model = build_model(spec.model.arch, data.num_classes, 3, spec.data.image_crop)
    settings = settings_of(spec, params)
    endless = type(settings)(**{**vars(settings), "epochs": 10_000})
    return images, train(model, method.objective(params), images.source, endless)


def _precision(bench: Bench) -> str:
    return "bf16" if bench.on_gpu else "fp32"


def memory(bench: Bench, budget: Budget) -> Iterator[str]:
    bf16 = bench.on_gpu
    predicted = model_memory(bench.arch, 90, 3, bench.crop, bf16=bf16)
    yield (
        f"predicted: {predicted.fixed / 1e9:.2f} GB and {predicted.saved_per_row / 1e6:.1f} MB a row; "
        f"evaluation {predicted.evaluated_per_row / 1e6:.1f} MB a row"
    )
    if not bench.on_gpu:
        yield "measured: on a GPU only"
        return

    peaks = []
    for size in (bench.batch // 2, bench.batch):
        batch = make_batch(size, bench.crop, bench.device.type)
        ours = make_sides(bench.arch, batch, (FASTEST,))[1]
        ours.step()
        torch.cuda.reset_peak_memory_stats()
        ours.step()
        bench.synchronize()
        peaks.append(torch.cuda.max_memory_allocated())
        del ours, batch
        torch.cuda.empty_cache()
    rows = 3 * (bench.batch - bench.batch // 2)
    yield (
        f"measured: {peaks[1] / 1e9:.2f} GB at most with {3 * bench.batch} rows, "
        f"{(peaks[1] - peaks[0]) / rows / 1e6:.1f} MB a row (the reference's copy of the weights is in it)"
    )


def waits(bench: Bench, budget: Budget) -> Iterator[str]:
    """An epoch's waits must not grow with its steps."""
    counts = []
    for batch in (bench.batch, max(2, bench.batch // 2)):
        _, results = _epochs(bench, batch=batch, **bench.small)
        next(results).state()
        found = _counted_waits(results, bench)
        counts.append(sum(found.values()))
        if bench.on_gpu:
            places = ", ".join(f"{place} {count}" for place, count in found.most_common(12))
            yield f"batch {batch}: {counts[-1]} waits in an epoch and its checkpoint: {places}"
    if not bench.on_gpu:
        yield "a CPU is never waited for"
        return
    refuse(counts[1] > counts[0], "with twice the steps there are more waits: some step waits")


def _counted_waits(results: Iterator[EpochResult], bench: Bench) -> Counter[str]:
    """Where torch has waited for the device in the next epoch, by file and line."""
    if bench.on_gpu:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            next(results).state()
    finally:
        if bench.on_gpu:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(one.filename).name}:{one.lineno}"
        for one in seen
        if "synchroniz" in str(one.message)
    )


# --- packing


def packing(bench: Bench, budget: Budget) -> Iterator[str]:
    next(_trial_epochs(bench, "packing", epochs=2))  # images and baseline are there then
    alone = 0.0
    for count in (1, 2):
        rates = _together(bench, count, budget.part(0.45) if count == 1 else budget)
        alone = alone or sum(rates)
        yield (
            f"{count} at once: {sum(rates):.0f} images/s in whole epochs, {sum(rates) / alone:.2f} x one"
        )


def _together(bench: Bench, count: int, budget: Budget) -> list[float]:
    """Images a second of so many processes; their start is not counted, but is in the budget."""
    gate = bench.folder / f"gate{count}"
    gate.mkdir()
    command = [*_command(bench), "--worker", str(gate)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for _ in range(count)
    ]
    try:
        while len(list(gate.glob("ready-*"))) < count:
            refuse(any(process.poll() for process in processes), "a process ended at once")
            time.sleep(0.05)
        seconds = min(WORKER_S, 0.7 * budget.left) if bench.on_gpu else 0.0
        (gate / "seconds").write_text(str(seconds), encoding="utf-8")
        (gate / "go").touch()
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    refuse(any(process.returncode for process in processes), "a process failed")
    return [float(output.split()[-1]) for output in outputs]


def _command(bench: Bench) -> list[str]:
    """This program again, about the same."""
    command = [sys.executable, str(Path(__file__).with_name("gpu.py"))]
    for name in ("device", "arch", "batch", "crop", "images"):
        command += [f"--{name}", str(getattr(bench.options, name))]
    return command


def work(bench: Bench, gate: Path) -> None:
    """One of several trials on the device: whole epochs, from the moment when all are ready."""
    shared = Bench(
        bench.device, bench.arch, bench.batch, bench.crop, bench.num_images, gate.parent, bench.options
    )  # fmt: skip
    vars(shared)["photographs"] = [gate.parent / "photographs"]  # they are there already
    results = _trial_epochs(shared, f"worker-{os.getpid()}", epochs=10_000)
    next(results)
    (gate / f"ready-{os.getpid()}").touch()
    while not (gate / "go").exists():
        time.sleep(0.005)

    started, num_epochs = time.perf_counter(), 0
    seconds = float((gate / "seconds").read_text(encoding="utf-8"))
    while not num_epochs or time.perf_counter() - started < seconds:
        next(results)
        num_epochs += 1
    bench.synchronize()
    print(num_epochs * 2 * shared.num_trained / (time.perf_counter() - started))


SECTIONS: dict[str, Callable[[Bench, Budget], Iterator[str]]] = {
    "correctness": correctness,
    "ceilings": ceilings,
    "step": step,
    "compile": compile,
    "input": input_,
    "epoch": epoch,
    "memory": memory,
    "waits": waits,
    "packing": packing,
}
