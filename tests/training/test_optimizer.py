"""`training/optimizer.py`."""

from __future__ import annotations

import subprocess
import sys

import torch

from lmoe_tune.training.optimizer import NesterovSGD


def parameters() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in ((3, 4), (5,))]


def test_its_steps_are_those_of_torchs_own_class_bit_for_bit() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = NesterovSGD(ours, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.SGD(
        theirs, lr=1.0, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True
    )
    for lr in (0.1, 0.05, 0.01):
        for params, one in ((ours, optimizer), (theirs, reference)):
            one.zero_grad()
            sum((param**3).sum() for param in params).backward()
        optimizer.step(lr)
        reference.param_groups[0]["lr"] = lr
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    first, second = parameters()
    before = second.detach().clone()
    optimizer = NesterovSGD([first, second], momentum=0.9, weight_decay=0.1)
    first.sum().backward()
    optimizer.step(0.1)
    assert torch.equal(second, before)


def test_its_momentum_survives_a_state_dict() -> None:
    ours, theirs = parameters(), parameters()
    one, other = (NesterovSGD(params, momentum=0.9, weight_decay=0.0) for params in (ours, theirs))
    ours[0].sum().backward()
    one.step(0.1)
    with torch.no_grad():
        theirs[0].copy_(ours[0])
    other.load_state_dict(one.state_dict())
    for params, optimizer in ((ours, one), (theirs, other)):
        optimizer.zero_grad()
        params[0].sum().backward()
        optimizer.step(0.1)
    assert torch.equal(ours[0], theirs[0])


def test_using_it_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch; from lmoe_tune.training.optimizer import NesterovSGD\n"
        "x = torch.ones(2, requires_grad=True); o = NesterovSGD([x], momentum=0.9, weight_decay=0.0)\n"
        "x.sum().backward(); o.step(0.1); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stdout.strip() == "False"
