"""One file per data set: its name, its published numbers, and how its folder is read.

The declaration (a `Reader`) is the only home of a data set: the names and defaults that a spec
knows, the published class numbers, the strip to cut off its images, and what its pictures show all
come from it. The modules here import neither NumPy nor torch, so that a spec is checked quickly:
`lmoe_tune.spec` takes names and defaults from here, `lmoe_tune.data.table` reads the images
through `recognition.find_layout`.

To add a data set, write a file with its `READER`, add a line to `READERS` below, and test it with
`lmoe_tune.testing.readers.ReaderCase`. A layout that several sets share (numbered lists, class
folders) has its own file.
"""

from __future__ import annotations

from lmoe_tune.readers import (
    butterfly200,
    cub200,
    embedded,
    fgvc_aircraft,
    folder,
    nabirds,
    stanford_cars,
    webvision,
)
from lmoe_tune.readers.layout import LayoutError, Reader

__all__ = ["READERS", "LayoutError", "Reader"]

READERS: dict[str, Reader] = {
    "digits": embedded.DIGITS,
    "photo_china": embedded.CHINA,
    "photo_flower": embedded.FLOWER,
    "stanford_cars": stanford_cars.READER,
    "fgvc_aircraft": fgvc_aircraft.READER,
    "nabirds": nabirds.READER,
    "butterfly200": butterfly200.READER,
    "cub200": cub200.READER,
    "webvision": webvision.READER,
    "folder": folder.READER,
}
"""Every data set by the name that a spec gives it."""
