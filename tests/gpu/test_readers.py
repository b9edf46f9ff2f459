"""What the reader of image files must do on a GPU: each of these, left out, is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Alone = Callable[..., Any]

READING = """
from contextlib import ExitStack
from unittest import mock

import numpy as np

from lmoe_tune.data import loaders, streams
from lmoe_tune.data.loaders import Crops, HostLoader
from tests.gpu.pretended import PretendedTensor
from tests.gpu.streams import Stream

empty = torch.empty

def pageable(*arguments, **named):
    return empty(*arguments, **{**named, "pin_memory": False})

LEFT_OUT = {
    "nothing": lambda: mock.patch.object(loaders, "AHEAD", loaders.AHEAD),
    "event": lambda: mock.patch.object(Stream, "wait_event", lambda self, event: None),
    "record_stream": lambda: mock.patch.object(PretendedTensor, "record_stream", lambda self, stream: None),
    "pinned buffer": lambda: mock.patch.object(torch, "empty", pageable),
}
rows = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 3), dtype=np.uint8)
batches = [Crops.at((1, 1), np.array(chosen)) for chosen in ([0, 1], [2, 3], [4, 5])]
with PretendedGpu() as gpu, LEFT_OUT[left_out]():
    loader = HostLoader(rows, torch.device("cuda"), threads=1)
    read = [images * 2 for images in loader.read(batches, 8)]
    uploaded = streams.uploaded(torch.ones(3), torch.device("cuda")) * 2
    waits = len(gpu.waits)
    first = read[0].cpu()
found = {
    "right": torch.equal(first, 2 * torch.from_numpy(rows[:2, 1:9, 1:9])),
    "faults": len(gpu.faults) > 0,
    "pageable": len(gpu.pageable) > 0,
    "waits": waits,
}
"""


@pytest.mark.parametrize("left_out", ["nothing", "event", "record_stream", "pinned buffer"])
def test_an_event_a_record_stream_or_a_pinned_buffer_that_is_missing_is_found(
    alone: Alone, left_out: str
) -> None:
    found = alone(READING, left_out=left_out)
    assert found["right"]
    assert found["faults"] == (left_out in ("event", "record_stream"))
    assert found["pageable"] == (left_out == "pinned buffer")
    assert found["waits"] == 0
