"""The names of the data sets a spec may use, and what each can serve as; `lmoe_tune.data` reads them."""

from __future__ import annotations

from typing import Literal

DatasetName = Literal[
    "digits", "photo_china", "photo_flower", "stanford_cars", "fgvc_aircraft", "nabirds", "butterfly200",
    "cub200", "webvision", "folder",
]  # fmt: skip

EMBEDDED = frozenset({"digits", "photo_china", "photo_flower"})
"""These come inside scikit-learn and have no `root`."""

WITHOUT_CLASSES = frozenset({"photo_china", "photo_flower", "webvision"})
"""These have no classes to learn: they serve as outliers and as coarse_ood only."""
