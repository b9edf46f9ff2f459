"""Images per second and core: decoding in every epoch against decoding once.

    python benchmarks/input_pipeline.py [--images 128] [--rounds 5] [--out FILE]
    python benchmarks/input_pipeline.py --images 24 --rounds 1 --resize 128 --crop 112      # a first look

Both sides read the same generated photographs (500 x 375 to 1000 x 750, JPEG of quality 90) and give batches of 32.
Everything runs in one process held on one core, so background threads count in full:

    published  torch's DataLoader over PIL: Resize((512, 512)), RandomCrop(448), and where it augments flip,
               ColorJitter(32/255, saturation 0.5), ToTensor, Normalize. `num_workers=0`: workers add to it the
               copying of each batch between processes
    ours       lmoe_tune's decoded cache and its loader, and where it augments the batched augmentation that a
               trial uses, on the CPU as well

*Loading* is from the file to a cropped uint8 batch. Before anything is timed, the pixels of both are compared: they
must be equal. The files are in the page cache for both sides, as they are after the first epoch. The cold build
decodes everything once, writes it and waits for the disk. A sweep of 64 trials of 10 epochs reads all images 640
times (a pruned one less; the table also has 1, 10 and 160 times). Rounds are interleaved, figures are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine  # noqa: E402 (after the checkout is on the path)
from benchmarks.peers.published_protocol import (  # noqa: E402
    MEAN,
    STD,
    Photographs,
    loading,
    loading_and_augmenting,
)
from benchmarks.photographs import write_photographs  # noqa: E402
from lmoe_tune.data.augment import NUM_DRAWN, augment, augmentation_of  # noqa: E402
from lmoe_tune.data.decoded_cache import CachedImages, DecodedCache, ImageFile  # noqa: E402
from lmoe_tune.data.loaders import Crops, HostLoader  # noqa: E402
from lmoe_tune.spec import AugmentSpec  # noqa: E402

BATCH = 32
READINGS = (
    1,
    10,
    160,
    640,
)  # of all images: an epoch, a trial, a sweep pruned to a quarter, a sweep of 64 trials
CPU = torch.device("cpu")


def main() -> None:
    options = parsed()
    core = min(os.sched_getaffinity(0))
    lines = [
        "input pipeline: images per second on one core",
        *machine("torch", "torchvision", "pillow", "numpy"),
    ]
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = write_photographs(Path(folder) / "photographs", options.images)
        size = sum(path.stat().st_size for path in paths) / len(paths)
        lines.append(
            f"{len(paths)} photographs of {size / 1000:.0f} kB on average, resize {options.resize}, crop "
            f"{options.crop}, batches of {BATCH}, {options.rounds} rounds"
        )
        files = [ImageFile(path) for path in paths]
        warm = [path.read_bytes() for path in paths]
        del warm
        builds, cache = [], DecodedCache(Path(folder) / "none", options.resize)
        for number in range(options.rounds):
            cache = DecodedCache(Path(folder) / f"cache{number % 2}", options.resize)
            clear(cache)
            builds.append(
                seconds(partial(cache.acquire, files, processes=1, say=lambda text: None))
            )
        rows = cache.acquire(files)
        check_pixels(paths, rows, options)
        lines.append("pixels of both sides: equal")
        loader = HostLoader(rows, CPU, threads=1)  # a trial has one for all its epochs, too
        sides: dict[str, Callable[[], None]] = {
            "published, loading": lambda: consume(
                DataLoader(
                    Photographs(paths, loading(options.resize, options.crop)), BATCH, shuffle=True
                )
            ),
            "ours, loading": lambda: read(rows, loader, options, augmented=False),
            "published, with augmentation": lambda: consume(
                DataLoader(
                    Photographs(paths, loading_and_augmenting(options.resize, options.crop)),
                    BATCH,
                    shuffle=True,
                )
            ),
            "ours, with augmentation": lambda: read(rows, loader, options, augmented=True),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            side()
        for _ in range(options.rounds):
            for name, side in sides.items():
                repeats = (
                    10 if name == "ours, loading" else 1
                )  # an epoch of it is too short to time
                times[name].append(sum(seconds(side) for _ in range(repeats)) / repeats)
        cold = cold_reading(cache, rows, loader, options)
    per_image = {name: statistics.median(values) / len(paths) for name, values in times.items()}
    per_image["ours, building (once)"] = statistics.median(builds) / len(paths)
    lines += report(per_image, times, cold / len(paths))
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resize", type=int, default=512)
    parser.add_argument("--crop", type=int, default=448)
    parser.add_argument(
        "--folder", type=Path, help="where to write the photographs and the cache; they are removed"
    )
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def clear(cache: DecodedCache) -> None:
    """Forget what an earlier round has built."""
    for path in sorted(cache.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def check_pixels(paths: list[Path], rows: CachedImages, options: argparse.Namespace) -> None:
    """Both sides must give the same image before the crop."""
    whole = Photographs(paths, loading(options.resize, options.resize))
    for number in range(len(paths)):
        if not np.array_equal(whole[number].permute(1, 2, 0).numpy(), rows[number]):
            raise SystemExit(
                f"{paths[number]}: the two sides give other pixels; timing them would say nothing"
            )


def consume(loader: DataLoader[torch.Tensor]) -> None:
    for _ in loader:
        pass


def read(
    rows: CachedImages, loader: HostLoader, options: argparse.Namespace, *, augmented: bool
) -> None:
    """An epoch as a trial reads it."""
    order = np.random.default_rng().permutation(len(rows))
    batches = [order[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    numbers = np.random.default_rng(0).random((len(rows), NUM_DRAWN))
    drawn = [
        augmentation_of(
            numbers[: len(batch)], AugmentSpec(), side=options.resize, crop=options.crop
        )
        for batch in batches
    ]
    crops = (
        Crops(batch, one.tops.numpy(), one.lefts.numpy())
        for batch, one in zip(batches, drawn, strict=True)
    )
    mean, std = 255 * torch.tensor(MEAN), 255 * torch.tensor(STD)
    for pixels, one in zip(loader.read(crops, options.crop), drawn, strict=True):
        if augmented:
            augment(pixels, one, mean, std)


def cold_reading(
    cache: DecodedCache, rows: CachedImages, loader: HostLoader, options: argparse.Namespace
) -> float:
    """Seconds of an epoch whose pages have been given back to the kernel: what the disk adds."""
    for path in cache.folder.rglob("pixels"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return seconds(lambda: read(rows, loader, options, augmented=False))


def seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def report(per_image: dict[str, float], times: dict[str, list[float]], cold: float) -> list[str]:
    lines = ["", f"{'':32}{'ms an image':>13}{'images/s':>10}{'spread':>9}"]
    for name, value in per_image.items():
        spread = f"{(max(times[name]) / min(times[name]) - 1) * 100:.0f}%" if name in times else ""
        lines.append(f"{name:32}{value * 1000:13.3f}{1 / value:10.0f}{spread:>9}")
    lines.append(f"{'ours, loading, first from disk':32}{cold * 1000:13.3f}{1 / cold:10.0f}")
    loading_peer, loading_ours = per_image["published, loading"], per_image["ours, loading"]
    whole_peer, whole_ours = (
        per_image["published, with augmentation"],
        per_image["ours, with augmentation"],
    )
    build = per_image["ours, building (once)"]
    added = (whole_peer - loading_peer) * 1000, (whole_ours - loading_ours) * 1000
    lines += [
        "",
        f"loading, once cached: {loading_peer / loading_ours:.1f} x   (to reach: 40)",
        f"augmentation on the same core adds {added[0]:.2f} ms an image to published, {added[1]:.2f} ms to ours",
        f"all of it on one core, once cached: {whole_peer / whole_ours:.1f} x",
        "",
        f"{'readings of all images':>24}{'loading, build included':>26}{'with augmentation':>20}",
    ]
    for count in READINGS:
        loaded = count * loading_peer / (build + count * loading_ours)
        whole = count * whole_peer / (build + count * whole_ours)
        note = "   (64 trials of 10 epochs; to reach: 10 in loading)" if count == 640 else ""
        lines.append(f"{count:24}{loaded:24.1f} x{whole:18.1f} x{note}")
    return lines


if __name__ == "__main__":
    main()
