"""From the images that a layout finds to a reading: in order, with classes that have images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lmoe_tune.readers.layout import Entry, LayoutError, Reading
from lmoe_tune.readers.names import class_name, folded, path_key, some
from lmoe_tune.wording import counted


def make_reading(
    entries: Sequence[Entry],
    *,
    classes: Sequence[str],
    absent: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Reading:
    """A reading of some images (N,) in any order; classes (C,) without an image are left out and
    noted.

    Labels and classes may come as they are on the disk: spellings that differ only in their Unicode
    form are one class.

    Raises:
        LayoutError: an image is listed with two classes, or in two parts of the split.
    """
    entries, repeated = _each_once(entries)
    labels = {entry.label for entry in entries}
    name_of = {label: class_name(label) for label in labels}
    used = set(name_of.values())
    all_classes = tuple(dict.fromkeys(map(class_name, classes)))
    kept = tuple(name for name in all_classes if name in used)
    notes = [*notes, *repeated, *_spelling_notes(name_of, kept)]

    if entries and len(kept) < len(all_classes):
        lacking = len(all_classes) - len(kept)
        notes.append(f"{lacking} of {len(all_classes)} classes have no image and are left out")

    if any(label != name for label, name in name_of.items()):
        entries = [entry._replace(label=name_of[entry.label]) for entry in entries]
    entries = sorted(entries, key=lambda entry: path_key(entry.path))
    return Reading(tuple(entries), kept, tuple(dict.fromkeys(absent)), tuple(notes))


def _each_once(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries without repeated ones, and a note on these."""
    first: dict[str, Entry] = {}
    repeated, contradicting = [], []
    for entry in entries:
        known = first.setdefault(entry.path, entry)
        if known != entry:
            contradicting.append(f"{entry.path} is {_said_of(known)} and {_said_of(entry)}")
        elif known is not entry:
            repeated.append(entry.path)

    if contradicting:
        raise LayoutError(
            f"the lists contradict themselves about {counted(len(contradicting), 'image')}: "
            f"{some(contradicting, '; ')}",
            "use the original lists, which give every image one class and one part of the split",
        )
    notes = []
    if repeated:
        notes.append(f"images that are listed more than once are taken once: {some(repeated)}")
    return list(first.values()), notes


def _said_of(entry: Entry) -> str:
    """What a list says of an image."""
    if entry.official:
        return f"'{entry.label}' in {entry.official}"
    return f"'{entry.label}'"


def told_apart(name_of: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Names of classes by their ids: a name that several classes have is followed by the id. And a
    note on these."""
    count = Counter(map(class_name, name_of.values()))
    shared = sorted(name for name, classes in count.items() if classes > 1)
    if not shared:
        return dict(name_of), []

    apart = dict(name_of)
    for id_, name in name_of.items():
        if class_name(name) in shared:
            apart[id_] = f"{name} ({id_})"
    return apart, [f"several classes have the same name, and get their ids: {some(shared)}"]


def _spelling_notes(name_of: dict[str, str], classes: Sequence[str]) -> list[str]:
    """Notes on labels that spell one class in several ways, and on classes that look the same."""
    notes = []
    if len(set(name_of.values())) < len(name_of):
        spellings = Counter(name_of.values())
        several = sorted(name for name, count in spellings.items() if count > 1)
        notes.append(f"classes spelt in several ways are treated as one: {some(several)}")

    first: dict[str, str] = {}
    twins = [
        f"'{first[folded(name)]}' and '{name}'"
        for name in classes
        if first.setdefault(folded(name), name) != name
    ]
    if twins:
        notes.append(
            f"classes that differ in case or blanks only are different classes: {some(twins)}"
        )
    return notes
