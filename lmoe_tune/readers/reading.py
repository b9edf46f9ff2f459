"""From the images that a layout finds to a reading: in order, with classes that have images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lmoe_tune.readers.layout import Entry, Reading
from lmoe_tune.readers.names import class_name, folded, path_key, some


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
    """
    labels = {entry.label for entry in entries}
    name_of = {label: class_name(label) for label in labels}
    used = set(name_of.values())
    all_classes = tuple(dict.fromkeys(map(class_name, classes)))
    kept = tuple(name for name in all_classes if name in used)
    notes = [*notes, *_spelling_notes(name_of, kept)]

    if entries and len(kept) < len(all_classes):
        lacking = len(all_classes) - len(kept)
        notes.append(f"{lacking} of {len(all_classes)} classes have no image and are left out")

    if any(label != name for label, name in name_of.items()):
        entries = [entry._replace(label=name_of[entry.label]) for entry in entries]
    entries = sorted(entries, key=lambda entry: path_key(entry.path))
    return Reading(tuple(entries), kept, tuple(absent), tuple(notes))


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
