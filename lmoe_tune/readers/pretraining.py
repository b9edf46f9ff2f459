"""What weights trained on ImageNet have seen of a data set before anything is learnt here."""

from __future__ import annotations

from lmoe_tune.readers import READERS


def seen_by_imagenet(dataset: str) -> str:
    """A sentence for readers of a result: with ImageNet weights, a novel class is new to the
    fine-tuning only.
    """
    kind = READERS[dataset].shows
    if kind is None:
        return (
            "weights trained on ImageNet have seen photographs of 1,000 classes, perhaps of some of "
            "these, novel ones included: 'novel' means that a class was not fine-tuned on"
        )
    return (
        f"weights trained on ImageNet have seen photographs of {kind.name}, perhaps of the novel "
        "classes, too: 'novel' means that a class was not fine-tuned on"
    )
