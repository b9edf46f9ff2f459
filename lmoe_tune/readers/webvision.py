"""WebVision 1.0 (Li et al. 2017): 2.4 million web images found by text queries, for ImageNet's
1,000 synsets.

A folder holds what one query found, `google/q0001/`; `info/queries_synsets_map.txt` says which
synset the query was for ("query synset" a line, both counted from 1). The images are used as
outliers: a class is a synset, named by its line in `info/synsets.txt`. A part of the query folders
is enough.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.readers.files import images_below, present, read_list, read_pairs, subfolders
from lmoe_tune.readers.layout import Entry, Layout, LayoutError, Reader, Reading
from lmoe_tune.readers.names import path_key
from lmoe_tune.readers.reading import make_reading

SOURCES = ("google", "flickr")
_QUERY = re.compile(r"q(\d+)", re.IGNORECASE)
_SYNSET = re.compile(r"n\d{8}")


def _matches(root: Path) -> bool:
    info = root / "info"
    lists = ("synsets.txt", "queries_synsets_map.txt")
    sources = any((root / source).is_dir() for source in SOURCES)
    return sources and all((info / name).exists() for name in lists)


def _read(root: Path) -> Reading:
    synsets = read_list(root / "info" / "synsets.txt")
    synset_of = _queries(root / "info" / "queries_synsets_map.txt", synsets)
    notes: list[str] = []
    found: list[Entry] = []
    absent: list[str] = []

    for source in SOURCES:
        if not (root / source).is_dir():
            notes.append(f"there is no {source}/: only the other source's images are used")
            continue
        folders = subfolders(root / source)
        queries = {name: int(match[1]) for name in folders if (match := _QUERY.fullmatch(name))}
        unknown = [name for name in folders if queries.get(name) not in synset_of]
        if unknown:
            notes.append(
                f"folders of {source}/ that queries_synsets_map.txt lacks are left out: "
                f"{len(unknown)}"
            )
        labels = {name: synset_of[query] for name, query in queries.items() if query in synset_of}

        listing = root / "info" / f"train_filelist_{source}.txt"
        if listing.exists():
            here, gone = present(root, _listed(listing, source, labels))
            found += here
            absent += gone
        else:
            notes.append(f"there is no {listing.name}: all images in {source}/ are taken")
            found += [
                Entry(f"{source}/{name}/{path}", label)
                for name, label in labels.items()
                for path in images_below(root / source / name)
            ]

    used = {entry.label for entry in found}  # a part of the folders is enough: not worth a note
    classes = [synset for synset in synsets if synset in used]
    return make_reading(found, classes=classes, absent=absent, notes=notes)


def _queries(path: Path, synsets: list[str]) -> dict[int, str]:
    """The synset of each query number."""
    by_id = {match[0]: line for line in synsets if (match := _SYNSET.match(line))}
    pairs = read_pairs(path)
    numbers = [int(synset) for _, synset in pairs if synset.isdigit()]
    first = min(numbers, default=1)
    if numbers and max(numbers) - min(first, 1) >= len(synsets):
        raise LayoutError(
            f"{path} has the synset {max(numbers)}, but synsets.txt has {len(synsets)} lines",
            "unpack info.tar again",
        )

    found = {}
    for query, synset in pairs:
        match = re.search(r"\d+", query)
        if match is None or not (synset.isdigit() or synset in by_id):
            raise LayoutError(
                f"{path} has the line '{query} {synset}', but must have numbers",
                "unpack info.tar again",
            )
        found[int(match[0])] = by_id.get(synset) or synsets[int(synset) - min(first, 1)]
    return found


def _listed(path: Path, source: str, labels: dict[str, str]) -> list[Entry]:
    """The entries of a file list whose query folder is there: "google/q0001/x.jpg 0" a line."""
    entries = []
    for line in read_list(path):
        name, _, label = line.rpartition(" ")
        parts = path_key(name).split("/")
        if not (name and label.isdigit()):
            parts = path_key(line).split("/")
        if len(parts) >= 2 and parts[-2] in labels:
            entries.append(Entry(f"{source}/{parts[-2]}/{parts[-1]}", labels[parts[-2]]))
    return entries


READER = Reader(
    title="WebVision 1.0",
    layouts=(
        Layout(
            "google/ and flickr/ query folders",
            ("google", "flickr", "info/synsets.txt", "info/queries_synsets_map.txt"),
            _read,
            _matches,
        ),
    ),
    source="unpack the resized images and info.tar; a part of the query folders is enough",
    has_classes=False,
    class_folder=re.compile(r"q\d{4}$"),
)
