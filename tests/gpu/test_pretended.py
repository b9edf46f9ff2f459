"""The pretended GPU itself: it computes what a CPU computes, and sees what a real one would suffer from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Alone = Callable[..., Any]


def test_the_private_doors_of_torch_are_open(alone: Alone) -> None:
    found = alone(
        """
        from torch.utils._python_dispatch import TorchDispatchMode
        doors = {
            "Tensor._make_wrapper_subclass": hasattr(torch.Tensor, "_make_wrapper_subclass"),
            "amp_definitely_not_available":
                hasattr(torch.cuda.amp.common, "amp_definitely_not_available"),
        }
        for name in ("DisableTorchFunctionSubclass", "_ensureCUDADeviceGuardSet", "_only_lift_cpu_tensors",
                     "_set_only_lift_cpu_tensors", "_current_graph_task_id"):
            doors[f"torch._C.{name}"] = hasattr(torch._C, name)
        found = [name for name, is_open in doors.items() if not is_open]
        """
    )
    assert found == [], "this version of torch has closed what the pretended GPU needs"


TRAINING = """
from torch import nn
import torch.nn.functional as F

def losses(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    images, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    model.to(device, memory_format=torch.channels_last)
    images, labels = images.to(device), labels.to(device)
    values = []
    for _ in range(3):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        values.append(loss.detach())
    return torch.stack(values).cpu().tolist()
"""


def test_training_gives_the_cpus_numbers(alone: Alone) -> None:
    for bf16 in (False, True):
        code = TRAINING + (
            "on_cpu = losses('cpu')\n"
            "with PretendedGpu() as gpu:\n"
            "    there = losses('cuda')\n"
            "found = {'same': on_cpu == there, 'operations': gpu.num_operations, 'faults': gpu.faults}\n"
        )
        found = alone(code, bf16=bf16)
        assert found["same"]
        assert found["operations"] > 50
        assert found["faults"] == []


def test_tensors_of_two_devices_do_not_mix(alone: Alone) -> None:
    found = alone(
        """
        found = []
        with PretendedGpu():
            there, here = torch.ones(3, device="cuda"), torch.ones(3)
            for operation in (torch.add, torch.dot):
                try:
                    operation(there, here)
                except RuntimeError as error:
                    found.append(str(error)[:56])
            found.append((there + torch.tensor(1.0)).cpu().tolist())
        """
    )
    expected = "Expected all tensors to be on the same device, but found"
    assert found == [expected, expected, [2.0, 2.0, 2.0]]


def test_every_way_of_waiting_is_noted(alone: Alone) -> None:
    found = alone(
        """
        ways = {
            "item": lambda x: x.sum().item(),
            "cpu": lambda x: x.cpu(),
            "tolist": lambda x: x.tolist(),
            "bool": lambda x: bool((x > 0).any()),
            "nonzero": lambda x: (x > 0).nonzero(),
            "mask": lambda x: x[x > 0],
            "upload": lambda x: torch.ones(3).to("cuda"),
            "synchronize": lambda x: torch.cuda.synchronize(),
            "event": lambda x: torch.cuda.Event().synchronize(),
            "nothing": lambda x: (x * 2).sum(),
        }
        found = {}
        with PretendedGpu() as gpu:
            x = torch.ones(3, device="cuda")
            for name, way in ways.items():
                gpu.waits.clear()
                way(x)
                found[name] = len(gpu.waits)
        """
    )
    assert found.pop("nothing") == 0
    assert all(count >= 1 for count in found.values()), found


COPYING = """
with PretendedGpu() as gpu:
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    host = torch.ones(4)
    if "pin" not in left_out:
        host = torch.empty(4, pin_memory=True).copy_(host)
    with torch.cuda.stream(side):
        there = host.to("cuda", non_blocking=True)
        event = torch.cuda.Event()
        event.record(side)
    if "event" not in left_out:
        main.wait_event(event)
    if "record_stream" not in left_out:
        there.record_stream(main)
    total = there * 2
found = {"faults": len(gpu.faults), "pageable": len(gpu.pageable), "waits": len(gpu.waits)}
"""


def test_a_forgotten_event_record_stream_or_pinned_buffer_is_found(alone: Alone) -> None:
    assert alone(COPYING, left_out=[]) == {"faults": 0, "pageable": 0, "waits": 0}
    assert alone(COPYING, left_out=["event"])["faults"] == 1
    assert alone(COPYING, left_out=["record_stream"])["faults"] == 1
    assert alone(COPYING, left_out=["pin"])["pageable"] == 1


def test_threads_that_are_started_within_are_on_the_device(alone: Alone) -> None:
    found = alone(
        """
        from concurrent.futures import ThreadPoolExecutor
        with PretendedGpu():
            with ThreadPoolExecutor(1) as pool:
                made = pool.submit(lambda: torch.ones(2, device="cuda")).result()
            found = str(made.device)
        """
    )
    assert found == "cuda:0"
