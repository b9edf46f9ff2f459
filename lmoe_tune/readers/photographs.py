"""scikit-learn's two photographs, in patches; `lmoe_tune.data.embedded` reads them."""

from __future__ import annotations

from lmoe_tune.readers.layout import Reader

CHINA = Reader(title="patches of scikit-learn's photograph of China", has_classes=False)
FLOWER = Reader(title="patches of scikit-learn's photograph of a flower", has_classes=False)
