from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmoe_tune.data import decoded_cache
from lmoe_tune.data.decode import decode_resized
from lmoe_tune.data.decoded_cache import CachedImages, CacheSpaceError, DecodedCache, ImageFile
from lmoe_tune.data.rows import acquire_decoded
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Dataset, DataSpec

SIDE = 24
MakeFiles = Callable[..., list[ImageFile]]


@pytest.fixture
def files(tmp_path: Path) -> MakeFiles:
    """So many JPEGs, all different, none of a size that is a multiple of another."""

    def make(count: int, *, start: int = 0) -> list[ImageFile]:
        (tmp_path / "images").mkdir(exist_ok=True)
        made = []
        for number in range(start, start + count):
            path = tmp_path / "images" / f"{number:03d}.jpg"
            if not path.exists():
                pixels = np.random.default_rng(number).integers(0, 255, (4, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((40 + number % 7, 31)).save(path)
            made.append(ImageFile(path, number % 2))
        return made

    return make


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(tmp_path / "cache", SIDE)


def assert_decoded(found: CachedImages, files: list[ImageFile]) -> None:
    assert len(found) == len(files)
    for row, file in enumerate(files):
        np.testing.assert_array_equal(found[row], decode_resized(file.path, file.crop_bottom, SIDE))


def segments(cache: DecodedCache) -> list[Path]:
    return sorted(cache.folder.glob("segment-*"))


def decoded_now(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded in this process from here on."""
    names: list[str] = []
    real = decoded_cache.decode_block

    def spy(job):
        names.extend(Path(path).stem for path, _ in job["files"])
        return real(job)

    monkeypatch.setattr(decoded_cache, "decode_block", spy)
    return names


@pytest.mark.parametrize("processes", [1, 2])
def test_the_pixels_are_those_of_decoding_anew(
    cache: DecodedCache, files: MakeFiles, processes: int
) -> None:
    wanted = files(40)
    assert cache.num_missing(wanted)
    assert cache.num_missing(wanted) == 40
    assert_decoded(cache.acquire(wanted, processes=processes), wanted)
    assert_decoded(cache.acquire(wanted), wanted)


def test_only_what_is_new_is_decoded_and_any_order_can_be_asked_for(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = decoded_now(monkeypatch)
    cache.acquire(files(10), processes=1)
    assert len(names) == 10
    wanted = [*files(5, start=8), *files(3), *files(1), *files(1)]
    assert_decoded(cache.acquire(wanted, processes=1), wanted)
    assert names[10:] == ["010", "011", "012"]
    assert_decoded(cache.acquire(wanted[::-1], processes=1), wanted[::-1])
    assert len(names) == 13


def test_a_changed_file_another_cut_and_another_side_are_other_images(
    cache: DecodedCache, files: MakeFiles, tmp_path: Path
) -> None:
    wanted = files(3)
    cache.acquire(wanted)
    assert cache.num_missing([ImageFile(wanted[0].path, 7)]) == 1
    assert DecodedCache(tmp_path / "cache", SIDE + 1).num_missing(wanted) == 3
    Image.new("RGB", (50, 50), "red").save(wanted[1].path)
    assert cache.num_missing(wanted) == 1
    assert_decoded(cache.acquire(wanted), wanted)


def test_the_images_cannot_be_written_to(cache: DecodedCache, files: MakeFiles) -> None:
    found = cache.acquire(files(2))
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0] = 0


def test_progress_ends_at_the_number_of_images(cache: DecodedCache, files: MakeFiles) -> None:
    told: list[tuple[int, int]] = []
    cache.acquire(files(40), processes=2, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 40)
    assert told[-1] == (40, 40)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_no_images_need_no_cache(cache: DecodedCache) -> None:
    assert len(cache.acquire([])) == 0
    assert not cache.folder.exists()


# --- what does not fit, and what is broken


def test_too_many_for_the_limit_are_refused_before_anything_is_written(
    cache: DecodedCache, files: MakeFiles
) -> None:
    cache.acquire(files(4), limit=4 * SIDE * SIDE * 3 + 8192)
    with pytest.raises(CacheSpaceError, match="data.cache_limit is") as caught:
        cache.acquire(files(40), limit=20_000)
    assert caught.value.needed == 36 * SIDE * SIDE * 3
    assert len(segments(cache)) == 1
    assert not list(cache.folder.glob("building-*"))


def test_too_many_for_the_disk_are_refused(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = files(2)
    cache.acquire(wanted[:1])
    monkeypatch.setattr(decoded_cache, "SPARE_BYTES", 1 << 60)
    with pytest.raises(CacheSpaceError, match="free, of which .* GB must stay free") as caught:
        cache.acquire(wanted)
    assert caught.value.needed == SIDE * SIDE * 3


def test_that_they_will_not_fit_is_said_before_anything_is_made(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = files(2)
    cache.refuse_if_too_large(wanted, None)
    monkeypatch.setattr(decoded_cache, "SPARE_BYTES", 1 << 60)
    with pytest.raises(CacheSpaceError):
        cache.refuse_if_too_large(wanted, None)
    assert not cache.root.exists()

    monkeypatch.undo()
    cache.acquire(wanted)
    monkeypatch.setattr(decoded_cache, "SPARE_BYTES", 1 << 60)
    cache.refuse_if_too_large(wanted, None)


def test_what_can_be_done_where_they_do_not_fit_is_said(files: MakeFiles, tmp_path: Path) -> None:
    outliers = Dataset(dataset="folder", root="x", limit=9)
    spec = DataSpec(
        id=Dataset(dataset="folder", root="y"),
        outliers=outliers,
        resize=64,
        crop=32,
        cache_limit=200_000,
    )
    with pytest.raises(UsageError) as caught:
        acquire_decoded(files(30), spec, tmp_path)
    for choice in (
        "data.resize=32 ",
        "data.outliers.limit=N",
        "data.cache_limit=",
        "data.cache_dir",
        "data.cache=off",
    ):
        assert choice in str(caught.value)


def test_broken_images_are_named_and_the_whole_ones_kept(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK_BYTES", 0)  # 16 images a block
    wanted = files(40)
    wanted[3].path.write_bytes(b"")
    with pytest.raises(
        UsageError, match=r"1 of the images cannot be decoded:\n.*003.jpg: is empty"
    ):
        cache.acquire(wanted, processes=1)
    assert cache.num_missing(wanted) == 16
    wanted[3].path.unlink()
    with pytest.raises(UsageError, match="003.jpg: No such file"):
        cache.acquire(wanted)
    files(4)  # brings it back
    assert_decoded(cache.acquire(wanted), wanted)


def test_a_folder_that_cannot_be_made_is_refused(files: MakeFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="set data.cache_dir to a folder that is"):
        DecodedCache(tmp_path / "file", SIDE).acquire(files(1))


def test_a_full_disk_is_an_error_with_its_reason(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        decoded_cache, "decode_block", lambda job: {"failure": "No space left on device"}
    )
    with pytest.raises(
        LmoeTuneError, match="pixels: No space left on device; the images decoded so far are kept"
    ):
        cache.acquire(files(3), processes=1)


# --- kills, damage and company


def test_what_a_killed_build_has_finished_is_kept(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK_BYTES", 0)
    wanted = files(50)
    real = decoded_cache.decode_block

    def killed_in_the_third_block(job):
        if job["block"] == 2:
            raise KeyboardInterrupt
        return real(job)

    with monkeypatch.context() as patched:
        patched.setattr(decoded_cache, "decode_block", killed_in_the_third_block)
        with pytest.raises(KeyboardInterrupt):
            cache.acquire(wanted, processes=1)
    (building,) = cache.folder.glob("building-*")
    with (building / "journal").open("a", encoding="utf-8") as journal:
        journal.write("2 12ab")  # a line that was being written
    assert cache.num_missing(wanted[:32]), "what is being built is not read"
    names = decoded_now(monkeypatch)
    assert_decoded(cache.acquire(wanted, processes=1), wanted)
    assert len(names) == 18
    assert not list(cache.folder.glob("building-*"))


def test_a_block_that_a_power_cut_has_lost_is_decoded_again(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK_BYTES", 0)
    wanted = files(40)
    cache.acquire(wanted)
    (segment,) = segments(cache)
    building = segment.rename(segment.with_name("building-1"))
    with (building / "pixels").open(
        "r+b"
    ) as pixels:  # its journal line reached the disk, its pixels did not
        pixels.write(bytes(1000))
    names = decoded_now(monkeypatch)
    assert_decoded(cache.acquire(wanted, processes=1), wanted)
    assert len(names) == 16


def test_damage_is_found_and_mended(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded_cache, "BLOCK_BYTES", 0)
    wanted = files(40)
    cache.acquire(wanted)
    assert cache.verify() == 0
    (segment,) = segments(cache)
    with (segment / "pixels").open("r+b") as pixels:
        pixels.seek(20 * SIDE * SIDE * 3)
        pixels.write(b"\0\1")
    assert cache.verify() == 1
    assert cache.num_missing(wanted) == 16
    assert_decoded(cache.acquire(wanted), wanted)
    assert cache.verify() == 0


@pytest.mark.parametrize("spoil", ["truncated", "no pixels", "no journal", "no images"])
def test_a_spoilt_segment_is_not_read_but_replaced(
    cache: DecodedCache, files: MakeFiles, spoil: str
) -> None:
    wanted = files(5)
    cache.acquire(wanted)
    (segment,) = segments(cache)
    if spoil == "truncated":
        os.truncate(segment / "pixels", 100)  # mapped, it would end the process with SIGBUS
    else:
        (segment / spoil.removeprefix("no ")).unlink()
    assert cache.num_missing(wanted)
    cache.verify()
    assert_decoded(cache.acquire(wanted), wanted)


def test_another_build_is_waited_for_and_not_repeated(
    cache: DecodedCache, files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, said = files(20), []
    cache.folder.mkdir(parents=True)
    waits = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        waits.set()

    with (cache.folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results: list[CachedImages] = []
        thread = threading.Thread(
            target=lambda: results.append(cache.acquire(wanted, processes=1, say=say))
        )
        thread.start()
        assert waits.wait(30)
        assert not results
    thread.join(30)
    assert_decoded(results[0], wanted)
    assert "another process is decoding images" in said[0]


BUILD = """
import sys
from pathlib import Path
from lmoe_tune.data import decoded_cache
from lmoe_tune.data.decoded_cache import DecodedCache, ImageFile
decoded_cache.BLOCK_BYTES = 0
paths = sorted(Path(sys.argv[2]).iterdir())
files = [ImageFile(path, int(path.stem) % 2) for path in paths]
print("starting", flush=True)
cache = DecodedCache(Path(sys.argv[1]), 24)
cache.acquire(files, processes=2, progress=lambda done, total: print(done, flush=True))
"""


def build_process(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(tmp_path / "cache"), str(tmp_path / "images")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        encoding="utf-8",
    )


@pytest.mark.slow
def test_a_build_killed_at_any_moment_is_continued(
    cache: DecodedCache, files: MakeFiles, tmp_path: Path
) -> None:
    wanted = files(120)
    for after in (1, 3):  # lines of its output
        process = build_process(tmp_path)
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert_decoded(cache.acquire(wanted, processes=1), wanted)


@pytest.mark.slow
def test_processes_that_want_it_at_once_build_it_once(
    cache: DecodedCache, files: MakeFiles, tmp_path: Path
) -> None:
    wanted = files(60)
    processes = [build_process(tmp_path) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
    assert len(segments(cache)) == 1
    assert_decoded(cache.acquire(wanted), wanted)
