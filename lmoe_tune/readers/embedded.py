"""scikit-learn's handwritten digits, 1,797 images of 8 x 8, and its two photographs, in patches;
`lmoe_tune.data.embedded` reads them."""

from __future__ import annotations

from lmoe_tune.readers.layout import Reader

DIGITS = Reader(
    title="scikit-learn's handwritten digits",
    num_classes=10,
    num_id_classes=7,
    num_val_novel=2,
)
CHINA = Reader(title="patches of scikit-learn's photograph of China", has_classes=False)
FLOWER = Reader(title="patches of scikit-learn's photograph of a flower", has_classes=False)
