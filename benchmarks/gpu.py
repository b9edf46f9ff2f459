"""A trial on a GPU: ResNet-50 at 448 pixels, the reference loop against ours, input and packing included.

    python benchmarks/gpu.py [--out benchmarks/results/gpu.txt]         # one call, about six minutes
    python benchmarks/gpu.py --arch resnet18 --crop 64 --resize 72 --batch 8 --photographs 64 --steps 3

It needs one CUDA device and exits with 2 where there is none. In this order:

    1. Is it right?      the batches that a GPU is given against those of the CPU; loss and gradients of `separate`
                         in fp32 against the reference loop's (TF32 off for both), and how far the other modes are
    2. The ceiling       the fastest bf16 matrix product of 8192 x 8192 that this GPU does
    3. The step          reference: a forward each for images, outliers and mixtures, fp32, torch.optim.SGD, with
                         and without TF32; ours in every mode; all on a batch that lies on the GPU
    4. The input         ours with real batches: decoded photographs cropped from the mapped cache (`disk`) or from
                         the GPU's memory (`device`), augmented on the GPU. *Stall* is the share of the time that
                         goes beyond the same steps, augmentation included, on batches that lie there already
    5. The whole         the reference loop with torch's DataLoader (a worker per core) against ours: images per second
    6. Packing           1, 2 and 4 processes, each a trial of ours, on the one GPU: images per second in all

It has not been run on a GPU yet: no result of it is in `results/`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from machine import machine
from peers.published_protocol import (
    MEAN,
    STD,
    Photographs,
    loading_and_augmenting,
    loss_of_three_forwards,
)
from photographs import write_photographs
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from train_step import Mode, Ours, Reference, differences, make_batch, make_sides, table, timed

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lmoe_tune.data.augment import (  # noqa: E402 (after the checkout is on the path)
    NUM_DRAWN,
    Augmentation,
    augment,
    augmentation_of,
)
from lmoe_tune.data.batches import Batch  # noqa: E402
from lmoe_tune.data.decoded_cache import CachedImages, DecodedCache, ImageFile  # noqa: E402
from lmoe_tune.data.loaders import COPYING_THREADS, Crops, DeviceLoader, HostLoader, Loader  # noqa: E402
from lmoe_tune.spec import AugmentSpec  # noqa: E402

NO_GPU = 2
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FASTEST = Mode("joint", channels_last=True, bf16=True)
PACKED = (1, 2, 4)


def main() -> int:
    options = parsed()
    if not torch.cuda.is_available():
        print(
            "this machine has no CUDA device, so there is nothing to measure here", file=sys.stderr
        )
        return NO_GPU
    if options.worker is not None:
        work(options)
        return 0
    lines = [
        f"one trial on a GPU: {torch.cuda.get_device_name()}",
        *machine("torch", "torchvision", "pillow"),
    ]
    size = f"{options.batch} + {options.batch} images of {options.crop} x {options.crop}"
    lines.append(
        f"{options.arch}, {size}, medians of {options.rounds} rounds of {options.steps} steps"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = write_photographs(Path(folder) / "photographs", options.photographs)
        cache = DecodedCache(Path(folder) / "cache", options.resize)
        rows = cache.acquire([ImageFile(path) for path in paths], say=lambda text: None)
        check_batches(rows, options)
        lines += ["", "batches on the GPU and on the CPU: equal to rounding"]
        step_lines, _ = measure_steps(options)
        lines += step_lines
        lines += measure_input(rows, options)
        lines += measure_whole(paths, rows, options)
        lines += measure_packing(Path(folder), options)
    lines += [
        "",
        f"largest reservation of memory here: {torch.cuda.max_memory_reserved() / 1e9:.1f} GB",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument(
        "--batch", type=int, default=32, help="images; as many outliers come on top"
    )
    parser.add_argument("--resize", type=int, default=512)
    parser.add_argument("--crop", type=int, default=448)
    parser.add_argument("--photographs", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a side in a round")
    parser.add_argument(
        "--folder", type=Path, help="where to write photographs and cache; they are removed"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def sync() -> None:
    torch.cuda.synchronize()


# --- is it right


def check_batches(rows: CachedImages, options: argparse.Namespace) -> None:
    """The GPU's loaders and augmentation against the CPU's."""
    there = [
        HostLoader(rows, CUDA, threads=COPYING_THREADS),
        DeviceLoader(rows, CUDA),
    ]
    expected = [
        images
        for images, _ in itertools.islice(
            augmented(HostLoader(rows, CPU, threads=1), rows, options), 3
        )
    ]
    for loader in there:
        for found, wanted in zip(augmented(loader, rows, options), expected, strict=False):
            difference = float((found[0].cpu() - wanted).abs().max())
            if difference > 1e-3:
                raise SystemExit(
                    f"{type(loader).__name__}: the batches differ from the CPU's by {difference}"
                )


def augmented(
    loader: Loader, rows: CachedImages, options: argparse.Namespace
) -> Iterator[tuple[Tensor, Augmentation]]:
    """Endless batches of images and outliers together, as a trial has them; always the same ones."""
    rng, size = np.random.default_rng(0), 2 * options.batch
    device = CPU
    drawn: list[Augmentation] = []

    def crops() -> Iterator[Crops]:
        while True:
            chosen = rng.choice(len(rows), size, replace=size > len(rows))
            numbers = rng.random((size, NUM_DRAWN))
            one = augmentation_of(numbers, AugmentSpec(), side=options.resize, crop=options.crop)
            drawn.append(one)
            yield Crops(chosen, one.tops.numpy(), one.lefts.numpy())

    for number, pixels in enumerate(loader.read(crops(), options.crop)):
        if pixels.device != device:
            device = pixels.device
        mean, std = (255 * torch.tensor(values, device=device) for values in (MEAN, STD))
        yield augment(pixels, drawn[number], mean, std), drawn[number]


# --- the step


def measure_steps(options: argparse.Namespace) -> tuple[list[str], float]:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch = make_batch(options.batch, options.crop, "cuda")
    sides = make_sides(options.arch, batch)
    apart = differences(sides)
    times = timed(sides, options.rounds, options.steps, sync)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    loose = timed(sides[:1], options.rounds, options.steps, sync)[sides[0].name]
    fastest = statistics.median(times[FASTEST.name])
    ceiling = matrix_product_ceiling()
    counter = FlopCounterMode(display=False)
    with counter:
        next(side for side in sides if side.name == FASTEST.name).step()
    achieved = counter.get_total_flops() / fastest
    lines = ["", *table(sides, apart, times)]
    lines.append(f"{'reference with TF32':44}{statistics.median(loose):10.3f}")
    lines += [
        "",
        f"the fastest mode is {statistics.median(loose) / fastest:.2f} x the reference with TF32",
        f"matrix products of 8192 x 8192 in bf16: {ceiling / 1e12:.0f} TFLOP/s",
        f"the step: {achieved / 1e12:.0f} TFLOP/s, {achieved / ceiling:.1%} of it",
    ]
    return lines, fastest


def matrix_product_ceiling() -> float:
    """FLOP/s of the best of many rounds."""
    side = 8192
    first, second = torch.randn(2, side, side, device=CUDA, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(20):
        sync()
        started = time.perf_counter()
        for _ in range(5):
            first @ second
        sync()
        best = max(best, 5 * 2 * side**3 / (time.perf_counter() - started))
    return best


# --- the input


def measure_input(rows: CachedImages, options: argparse.Namespace) -> list[str]:
    loaders: dict[str, Callable[[], Loader]] = {
        "disk": lambda: HostLoader(rows, CUDA, threads=COPYING_THREADS),
        "device": lambda: DeviceLoader(rows, CUDA),
    }
    lines = ["", f"{'input':44}{'s a step':>10}{'stall':>9}"]
    for name, make in loaders.items():
        real, resident = [], []
        loader = make()
        for _ in range(options.rounds):
            resident.append(steps_on(resident_batches(loader, rows, options), options))
            real.append(
                steps_on((images for images, _ in augmented(loader, rows, options)), options)
            )
        stall = statistics.median(
            1 - still / moving for still, moving in zip(resident, real, strict=True)
        )
        lines.append(
            f"{'data.cache: ' + name:44}{statistics.median(real):10.4f}{max(0.0, stall):9.1%}"
        )
    return lines


def resident_batches(
    loader: Loader, rows: CachedImages, options: argparse.Namespace
) -> Iterator[Tensor]:
    """The same augmentation, of pixels that lie on the GPU already."""
    rng, size = np.random.default_rng(0), 2 * options.batch
    pixels = torch.randint(
        256, (size, options.crop, options.crop, 3), dtype=torch.uint8, device=CUDA
    )
    mean, std = (255 * torch.tensor(values, device=CUDA) for values in (MEAN, STD))
    while True:
        numbers = rng.random((size, NUM_DRAWN))
        drawn = augmentation_of(numbers, AugmentSpec(), side=options.resize, crop=options.crop)
        yield augment(pixels, drawn, mean, std)


def steps_on(batches: Iterator[Tensor], options: argparse.Namespace) -> float:
    """Seconds a step of ours on these batches, after two that warm up."""
    side = fresh_side(options)
    started = 0.0
    for number, images in enumerate(itertools.islice(batches, options.steps + 2)):
        if number == 2:
            sync()
            started = time.perf_counter()
        side.batch = Batch(
            images[: options.batch], side.batch.labels, images[options.batch :], side.batch.pairs
        )
        side.step()
    sync()
    return (time.perf_counter() - started) / options.steps


_side: list[Ours] = []


def fresh_side(options: argparse.Namespace) -> Ours:
    """Ours in its fastest mode; one model for all rounds."""
    if not _side:
        sides = make_sides(options.arch, make_batch(options.batch, options.crop, "cuda"))
        _side.append(
            next(side for side in sides if isinstance(side, Ours) and side.mode == FASTEST)
        )
    return _side[0]


# --- all of it


def measure_whole(paths: list[Path], rows: CachedImages, options: argparse.Namespace) -> list[str]:
    ours = (
        options.batch
        * 2
        / steps_on(
            (
                images
                for images, _ in augmented(
                    HostLoader(rows, CUDA, threads=COPYING_THREADS), rows, options
                )
            ),
            options,
        )
    )
    batch = make_batch(options.batch, options.crop, "cuda")
    reference = make_sides(options.arch, batch)[0]
    assert isinstance(reference, Reference)
    loader = DataLoader(
        Photographs(paths, loading_and_augmenting(options.resize, options.crop)),
        2 * options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=len(os.sched_getaffinity(0)),
        pin_memory=True,
        persistent_workers=True,
    )
    count, started = 0, 0.0
    for epoch in range(3):  # the first one starts the workers
        if epoch == 1:
            sync()
            started = time.perf_counter()
        for images in loader:
            images = images.cuda(non_blocking=True)
            reference.optimizer.zero_grad()
            loss_of_three_forwards(
                reference.model,
                images[: options.batch],
                batch.labels,
                images[options.batch :],
                reference.lam(),
                mix=1.0,
                consistency=1.0,
            ).backward()
            reference.optimizer.step()
            count += len(images) if epoch else 0
    sync()
    theirs = count / (time.perf_counter() - started)
    cores = len(os.sched_getaffinity(0))
    return [
        "",
        f"files to weights, {cores} cores, images/s: the reference loop with DataLoader and TF32 {theirs:.0f}",
        f"ours {ours:.0f}: {ours / theirs:.1f} x",
    ]


# --- packing


def measure_packing(folder: Path, options: argparse.Namespace) -> list[str]:
    lines = ["", f"{'trials on the GPU at once':>28}{'images/s in all':>18}{'against one':>13}"]
    alone = 0.0
    _side.clear()
    torch.cuda.empty_cache()
    for count in PACKED:
        gate = folder / f"gate{count}"
        gate.mkdir()
        arguments = ["--arch", options.arch]
        for name in ("batch", "resize", "crop", "photographs", "rounds", "steps"):
            arguments += [f"--{name}", str(getattr(options, name))]
        command = [sys.executable, __file__, *arguments, "--worker", str(gate)]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
            for _ in range(count)
        ]
        while len(list(gate.glob("ready-*"))) < count and all(
            process.poll() is None for process in started
        ):
            time.sleep(0.05)
        (gate / "go").touch()
        outputs = [process.communicate()[0] for process in started]
        if any(process.returncode for process in started):
            lines.append(f"{count:28}   did not fit")
            break
        total = sum(float(output.split()[-1]) for output in outputs)
        alone = alone or total
        lines.append(f"{count:28}{total:18.0f}{total / alone:11.2f} x")
    return lines


def work(options: argparse.Namespace) -> None:
    """One of several trials on the GPU: the cache that is there already, steps until all have had their time."""
    gate = options.worker
    cache = DecodedCache(gate.parent / "cache", options.resize)
    files = [ImageFile(path) for path in sorted((gate.parent / "photographs").iterdir())]
    rows = cache.acquire(files, say=lambda text: None)
    loader = HostLoader(rows, CUDA, threads=COPYING_THREADS)
    side = fresh_side(options)
    batches = (images for images, _ in augmented(loader, rows, options))

    def step() -> None:
        images = next(batches)
        side.batch = Batch(
            images[: options.batch], side.batch.labels, images[options.batch :], side.batch.pairs
        )
        side.step()

    for _ in range(3):
        step()
    sync()
    (gate / f"ready-{os.getpid()}").touch()
    while not (gate / "go").exists():
        time.sleep(0.005)
    duration_s, num_steps, started = (
        max(5.0, 0.2 * options.steps * options.rounds),
        0,
        time.perf_counter(),
    )
    while (
        time.perf_counter() - started < duration_s
    ):  # the same span for all, so that they overlap throughout
        step()
        num_steps += 1
        if num_steps % 4 == 0:
            sync()  # the queue of a GPU is long: without this a process would only fill it
    sync()
    print(num_steps * 2 * options.batch / (time.perf_counter() - started))


if __name__ == "__main__":
    raise SystemExit(main())
