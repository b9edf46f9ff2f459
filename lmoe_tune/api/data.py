"""Looking at the data of a spec, and decoding them ahead of a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_tune.api.loading import load_spec
from lmoe_tune.data import load_search_data
from lmoe_tune.data.rows import cache_of, decode_ahead
from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.spec import DataSpec, LoadedSpec
from lmoe_tune.sweep.observer import Observer, hearing
from lmoe_tune.wording import readable_size

if TYPE_CHECKING:
    from lmoe_tune.data.inspection import Inspection


def inspect_data(
    spec: LoadedSpec | DataSpec | str | Path,
    *,
    home: str | Path | None = None,
    observer: Observer | None = None,
) -> Inspection:
    """Read everything that a spec names as data, and look for broken files, duplicates and leaks.

    Args:
        spec: what `load_spec` gave, or what it takes; its `spec.data` is enough.
        home: where findings are kept, so that a second inspection is quick; as for `search`.
        observer: hears of the progress.
    """
    from lmoe_tune.data.inspection import inspect

    observer = hearing(observer)
    return inspect(_data_of(spec), resolve_home(home), observer.on_work)


def build_data(
    spec: LoadedSpec | DataSpec | str | Path,
    *,
    home: str | Path | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Decode what is missing, check the rest against its checksums, and repair it; returns what was
    done.

    Args:
        spec: what `load_spec` gave, or what it takes; its `spec.data` is enough.
        home: where decoded images are kept; as for `search`.
        observer: hears of the progress.

    Raises:
        UsageError: the data are embedded, or `data.cache` is off.
    """
    wanted, home, observer = _data_of(spec), resolve_home(home), hearing(observer)
    data = load_search_data(wanted, home)
    if data.is_embedded:
        raise UsageError("data build: the embedded data need no decoding")
    if wanted.cache == "off":
        raise UsageError("data build: data.cache is 'off', so nothing is kept; set it to disk")
    say = observer.on_message
    files, cache = data.files(), cache_of(wanted, home)
    damaged = cache.verify(say=say)
    if damaged:
        say(f"{damaged} damaged blocks of images are decoded again")
    num_new = cache.num_missing(files)
    decode_ahead(files, wanted, home, work=observer.on_work, say=say)
    return {
        "folder": str(cache.folder),
        "images": len(files),
        "decoded_now": num_new,
        "damaged_blocks": damaged,
        "bytes": len(files) * cache.image_bytes,
        "size": readable_size(len(files) * cache.image_bytes),
    }


def _data_of(spec: LoadedSpec | DataSpec | str | Path) -> DataSpec:
    if isinstance(spec, DataSpec):
        return spec
    if not isinstance(spec, LoadedSpec):
        spec = load_spec(spec, bounded=True, look_for_data=False)
    return spec.spec.data
