"""A pretended GPU for tests: tensors that say `cuda:0` and are computed on the CPU, with real values.

    with PretendedGpu() as gpu:
        ...             # anything that trains on torch.device("cuda")
    gpu.waits           # every point at which the host would have waited for the GPU
    gpu.pageable        # copies from pageable memory
    gpu.faults          # another stream's tensor used without an event, or freed without record_stream

A `PretendedTensor` holds a CPU tensor. To C++ it is on the CPU (autograd wants a driver for anything on CUDA); to
Python it is on `cuda:0`. Below autograd and autocast every operator comes to `PretendedGpu.dispatch`, which refuses
tensors of both devices side by side as CUDA does, notes waits and streams, and computes on what the tensors hold.

Use it in a process of its own: autograd counts devices at the first backward, and the device guard stays.

Private doors of torch, each of which a new version may close (the first test of test_pretended.py says so then):
`Tensor._make_wrapper_subclass`, `torch._C.DisableTorchFunctionSubclass`, `torch.utils._python_dispatch`,
`torch._C._ensureCUDADeviceGuardSet`, `torch._C._set_only_lift_cpu_tensors`, `torch._C._current_graph_task_id`,
`torch.cuda.amp.common.amp_definitely_not_available`.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tests.gpu.streams import Event, Stream

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")
NAME = "a pretended GPU"
TOTAL_BYTES = 80 << 30

# The size of the result, or a number for the host, depends on data: the host waits.
DATA_DEPENDENT = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.item.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
}
CONVERSIONS = {aten.to.dtype_layout, aten.to.device, aten.to.dtype}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


@dataclass(frozen=True)
class Wait:
    """The host waits for the GPU: why, and the innermost lines of ours that led to it."""

    why: str
    where: str

    def __str__(self) -> str:
        return f"{self.why} at {self.where}"


class PretendedTensor(Tensor):
    """A tensor that says it is on `cuda:0`.

    Attributes:
        held: the CPU tensor with the values.
        written: the stream and the number of the operation that wrote it last.
        owner: the stream whose memory it is.
        users: other streams that `record_stream` has named.
        base: the tensor whose memory it shares; itself where it is no view.
    """

    held: Tensor
    gpu: PretendedGpu
    written: tuple[int, int]
    owner: int
    users: set[int]
    base: PretendedTensor

    @staticmethod
    def __new__(cls, held: Tensor, gpu: PretendedGpu) -> PretendedTensor:
        with torch.inference_mode(False):
            self = Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device="cpu",
            )
        self.held, self.gpu, self.base = held, gpu, self
        return self

    def __init__(self, *_: object) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return 0

    def __repr__(self, **_: object) -> str:
        return f"PretendedTensor({self.held})"

    def numpy(self, **_: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        self.gpu.host_waits("tolist")
        return self.held.tolist()

    def record_stream(self, stream: Stream) -> None:
        self.base.users.add(stream.number)

    def __reduce_ex__(self, protocol: Any) -> Any:  # torch.save copies to the host
        self.gpu.host_waits("save")
        return self.held.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        copied = PretendedTensor(self.held.clone(), self.gpu)
        self.gpu.note_written(copied)
        if self.requires_grad:
            copied.requires_grad_()
        if getattr(self, "_is_param", False):
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        gpu = PretendedGpu.in_use()
        if func is Tensor.cpu:
            func, args, kwargs = Tensor.to, (args[0], CPU), {}
        if func in (Tensor.to, Tensor.cuda):
            return _moved(gpu, func, args, kwargs)
        if func is torch.nn.functional.one_hot:  # a CPU looks for the largest class, CUDA does not
            labels, num_classes = args
            zeros = torch.zeros(*labels.shape, num_classes, dtype=torch.int64, device=DEVICE)
            return zeros.scatter_(-1, labels[..., None], 1)
        with gpu.within_cpp(), torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedGpu.in_use().dispatch(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """The device, for the length of a `with` block; threads that are started within are on it, too."""

    _in_use: PretendedGpu | None = None

    def __init__(
        self,
        *,
        free_bytes: int = TOTAL_BYTES,
        peak_bytes: int = 0,
        capability: tuple[int, int] = (9, 0),
    ) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.pageable: list[str] = []
        self.faults: list[str] = []
        self.streams: list[Stream] = []
        self.num_operations = 0
        self.free_bytes = free_bytes
        self.peak_bytes = peak_bytes
        self.num_peaks = 0
        self.capability = capability
        self._pinned: set[int] = set()
        self._local = threading.local()
        self._lock = threading.RLock()
        self._stack = contextlib.ExitStack()

    @classmethod
    def in_use(cls) -> PretendedGpu:
        assert cls._in_use is not None, "a tensor of a pretended GPU outlives it"
        return cls._in_use

    # ------------------------------------------------------------ what is noted

    def host_waits(self, why: str) -> None:
        with self._lock:
            self.waits.append(Wait(why, _where()))

    def current_stream(self) -> Stream:
        stream: Stream = getattr(self._local, "stream", None) or self._default
        return stream

    @contextlib.contextmanager
    def on_stream(self, stream: Stream | None) -> Iterator[None]:
        before = getattr(self._local, "stream", None)
        self._local.stream = stream
        try:
            yield
        finally:
            self._local.stream = before

    @contextlib.contextmanager
    def within_cpp(self) -> Iterator[None]:
        """What C++ makes beside our tensors, it makes on their device."""
        self._local.depth = getattr(self._local, "depth", 0) + 1
        try:
            yield
        finally:
            self._local.depth -= 1

    def note_written(self, tensor: PretendedTensor) -> None:
        stream = self.current_stream()
        tensor.written = (stream.number, stream.next_operation())
        if not hasattr(tensor, "owner"):
            tensor.owner, tensor.users = stream.number, set()

    def note_used(self, tensor: PretendedTensor, func: Any) -> None:
        stream = self.current_stream()
        writer, operation = getattr(tensor, "written", (stream.number, 0))
        if not stream.has_seen(writer, operation):
            self._fault(
                f"{func}: stream {stream.number} uses what stream {writer} writes, without an event"
            )
        base = tensor.base
        owner = getattr(base, "owner", stream.number)
        if owner != stream.number and stream.number not in base.users:
            self._fault(
                f"{func}: memory of stream {owner} is used on stream {stream.number} without record_stream"
            )
            base.users.add(stream.number)

    def _fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(f"{what}; {_where()}")

    def _note_copy(self, source: Tensor, *, to_gpu: bool, non_blocking: bool, into: Any) -> None:
        from_gpu = isinstance(source, PretendedTensor)
        if from_gpu == to_gpu or source.numel() == 0:
            return
        if from_gpu:
            if not (non_blocking and into is not None and self._is_pinned(into)):
                self.host_waits("copy to the CPU")
        elif not non_blocking:
            self.host_waits("blocking copy from the CPU")
        elif not self._is_pinned(source):
            num_bytes = source.numel() * source.element_size()
            with self._lock:
                self.pageable.append(f"{num_bytes} bytes at {_where()}")

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned

    # ------------------------------------------------------------ operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.dispatch(func, args, kwargs or {})

    def dispatch(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute one operator."""
        if func is torch.ops.prim.device.default:
            return DEVICE
        flat, _ = tree_flatten((args, kwargs))
        there = [value for value in flat if isinstance(value, PretendedTensor)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if target == CPU and there:  # asked for by C++, to which our tensors are on the CPU
            target = None
            kwargs = {key: value for key, value in kwargs.items() if key != "device"}

        to_gpu = target is not None and target.type == "cuda"
        made_beside_ours = getattr(self._local, "depth", 0) > 0 and not any(
            isinstance(value, Tensor) for value in flat
        )
        if not there and not to_gpu and not made_beside_ours:
            return self._on_the_host(func, args, kwargs)
        if func in CONVERSIONS:
            return self._converted(args, kwargs, target)
        if func is aten.copy_.default:
            return self._copied_into(args, kwargs)
        if func is aten._to_copy.default:
            return self._copied(args[0], kwargs, target)
        if func is aten.is_pinned.default:
            return False
        if func is aten.record_stream.default:
            return None
        return self._computed(func, args, kwargs, flat)

    def _on_the_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not kwargs.get("pin_memory"):
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "pin_memory": False})
        storage = made.untyped_storage()
        pointer = storage.data_ptr()
        self._pinned.add(pointer)
        weakref.finalize(storage, self._pinned.discard, pointer)
        return made

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any], flat: list[Any]) -> Any:
        if func in DATA_DEPENDENT:
            self.host_waits(str(func))
        if func in INDEXED:
            for index in args[1]:
                if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                    self.host_waits(f"{func} by a mask")
        for value in flat:
            if isinstance(value, PretendedTensor):
                self.note_used(value, func)
            elif isinstance(value, Tensor):
                self._refuse_beside_ours(func, value)

        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        if "device" in held_kwargs:
            held_kwargs["device"] = CPU
        if held_kwargs.get("pin_memory"):
            held_kwargs["pin_memory"] = False
        self.num_operations += 1
        result = func(*held_args, **held_kwargs)
        ours = [value for value in flat if isinstance(value, PretendedTensor)]
        return tree_map(lambda value: self._wrapped(func, value, ours), result)

    def _refuse_beside_ours(self, func: Any, value: Tensor) -> None:
        """As CUDA: only a CPU tensor of no dimensions may stand beside its own, and indices (with a wait)."""
        if value.dim() == 0 and func not in INDEXED:
            return
        if torch._C._current_graph_task_id() != -1:
            return  # made by autograd's own formulas, where our tensors are
        if func in INDEXED and value.dtype in (torch.int64, torch.bool):
            self.host_waits(f"{func} by indices on the CPU")
            return
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({func}); {_where()}"
        )

    def _wrapped(self, func: Any, value: Any, ours: list[PretendedTensor]) -> Any:
        if not isinstance(value, Tensor):
            return value
        for known in ours:
            if known.held is value:
                if _layout(known) != _layout(value):
                    raise NotImplementedError(f"{func} changes the shape in place")
                self.note_written(known)
                return known

        made = PretendedTensor(value, self)
        if value.numel():
            pointer = value.untyped_storage().data_ptr()
            for known in ours:
                if known.held.untyped_storage().data_ptr() == pointer:  # a view
                    made.base = known.base
                    made.owner, made.users = known.base.owner, known.base.users
                    made.written = known.written
                    return made
        self.note_written(made)
        return made

    # ------------------------------------------------------------ copies

    def _converted(self, args: Any, kwargs: dict[str, Any], target: torch.device | None) -> Any:
        """`Tensor.to`, which inference mode does not take apart."""
        source = args[0]
        asked = dict(kwargs)
        for value in args[1:]:
            if isinstance(value, str | torch.device):
                target = torch.device(value)
            elif isinstance(value, torch.dtype):
                asked["dtype"] = value
        names = ("dtype", "memory_format", "non_blocking")
        asked = {name: asked[name] for name in names if asked.get(name) is not None}

        is_there = isinstance(source, PretendedTensor)
        stays = target is None or is_there == (target.type == "cuda")
        same_type = asked.get("dtype", source.dtype) == source.dtype
        if stays and same_type and "memory_format" not in asked:
            return source
        return self._copied(source, asked, target)

    def _copied(self, source: Tensor, kwargs: dict[str, Any], target: torch.device | None) -> Any:
        is_there = isinstance(source, PretendedTensor)
        to_gpu = is_there if target is None else target.type == "cuda"
        non_blocking = bool(kwargs.get("non_blocking"))
        self._note_copy(source, to_gpu=to_gpu, non_blocking=non_blocking, into=None)
        if isinstance(source, PretendedTensor):
            self.note_used(source, aten._to_copy.default)
        left_out = ("device", "non_blocking", "pin_memory")
        asked = {key: value for key, value in kwargs.items() if key not in left_out}
        copied = aten._to_copy.default(_held(source), **asked)
        if not to_gpu:
            return copied
        made = PretendedTensor(copied, self)
        self.note_written(made)
        return made

    def _copied_into(self, args: Any, kwargs: dict[str, Any]) -> Any:
        into, source = args[0], args[1]
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        to_gpu = isinstance(into, PretendedTensor)
        self._note_copy(source, to_gpu=to_gpu, non_blocking=non_blocking, into=into)
        for value in (into, source):
            if isinstance(value, PretendedTensor):
                self.note_used(value, aten.copy_.default)
        _held(into).copy_(_held(source))
        if isinstance(into, PretendedTensor):
            self.note_written(into)
        return into

    # ------------------------------------------------------------ installation

    def __enter__(self) -> PretendedGpu:
        assert PretendedGpu._in_use is None, "one pretended GPU at a time"
        PretendedGpu._in_use = self
        torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing, as for fake tensors
        self._default = self._made_stream()
        for target, name, stub in self._stubs():
            self._stack.enter_context(mock.patch.object(target, name, stub))
        amp = "torch.cuda.amp.common.amp_definitely_not_available"
        self._stack.enter_context(mock.patch(amp, return_value=False))

        # Module.to must put in new parameters: it knows of no other way with a subclass.
        future = torch.__future__
        before = future.get_overwrite_module_params_on_conversion()
        self._stack.callback(future.set_overwrite_module_params_on_conversion, before)
        future.set_overwrite_module_params_on_conversion(True)
        lifted = torch._C._only_lift_cpu_tensors()
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()
        PretendedGpu._in_use = None

    def _begin_peak(self, device: object = None) -> None:
        self.num_peaks += 1

    def _made_stream(self, *_: object, **__: object) -> Stream:
        stream = Stream()
        self.streams.append(stream)
        return stream

    def _stubs(self) -> list[tuple[Any, str, Any]]:
        """What stands in for `torch.cuda` and its like, as (where, name, stand-in)."""
        cuda = torch.cuda
        state = torch.zeros(16, dtype=torch.uint8)
        return [
            (Stream, "current", staticmethod(self.current_stream)),
            (Stream, "host_waits", staticmethod(self.host_waits)),
            (threading.Thread, "run", self._run_of_threads()),
            (torch, "autocast", _autocast_of(torch.autocast)),
            (cuda, "Event", Event),
            (cuda, "Stream", self._made_stream),
            (cuda, "_lazy_init", lambda *_, **__: None),
            (cuda, "current_device", lambda: 0),
            (cuda, "current_stream", lambda device=None: self.current_stream()),
            (cuda, "default_stream", lambda device=None: self._default),
            (cuda, "device_count", lambda: 1),
            (cuda, "empty_cache", lambda *_, **__: None),
            (cuda, "get_device_capability", lambda *_: self.capability),
            (cuda, "get_device_name", lambda *_: NAME),
            (cuda, "get_rng_state", lambda device=None: state.clone()),
            (cuda, "is_available", lambda: True),
            (cuda, "is_bf16_supported", lambda *_, **__: self.capability >= (8, 0)),
            (cuda, "is_initialized", lambda: True),
            (cuda, "manual_seed", lambda *_, **__: None),
            (cuda, "manual_seed_all", lambda *_, **__: None),
            (cuda, "max_memory_allocated", lambda device=None: self.peak_bytes),
            (cuda, "mem_get_info", lambda device=None: (self.free_bytes, TOTAL_BYTES)),
            (cuda, "reset_peak_memory_stats", self._begin_peak),
            (cuda, "set_rng_state", lambda *_, **__: None),
            (cuda, "stream", self.on_stream),
            (cuda, "synchronize", lambda device=None: self.host_waits("synchronize")),
        ]

    def _run_of_threads(self) -> Callable[[threading.Thread], None]:
        original = threading.Thread.run

        def run(thread: threading.Thread) -> None:
            TorchDispatchMode.__enter__(self)
            try:
                original(thread)
            finally:
                TorchDispatchMode.__exit__(self, None, None, None)

        return run


def _moved(gpu: PretendedGpu, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """`Tensor.to` and `Tensor.cuda`; C++ would take a move between the devices for none."""
    tensor, rest = args[0], list(args[1:])
    if func is Tensor.cuda:
        rest, kwargs = [DEVICE], {"non_blocking": kwargs.get("non_blocking", False)}
    asked = kwargs.get("device")
    if rest and isinstance(rest[0], str | torch.device):
        asked = rest[0]
    device = None if asked is None else torch.device(asked)

    if isinstance(tensor, PretendedTensor) and device is not None:
        if device == CPU:
            gpu.note_used(tensor, "copy to the CPU")
            gpu._note_copy(tensor, to_gpu=False, non_blocking=False, into=None)
            copied = tensor.held.detach().clone()
            dtype = next((value for value in rest if isinstance(value, torch.dtype)), None)
            return copied if dtype is None else copied.to(dtype)
        rest = [value for value in rest if not isinstance(value, str | torch.device | bool)]
        kwargs = {key: kwargs[key] for key in kwargs if key not in ("device", "non_blocking")}
        dtype = next(
            (value for value in rest if isinstance(value, torch.dtype)), kwargs.get("dtype")
        )
        layout = kwargs.get("memory_format")
        fits = layout is None or tensor.is_contiguous(memory_format=layout)
        if dtype in (None, tensor.dtype) and fits:
            return tensor
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.to(tensor, *rest, **kwargs)


def _autocast_of(original: type) -> type:
    """Autocast that takes `cuda` for the CPU, where C++ believes our tensors to be."""

    class Autocast(original):  # type: ignore[misc]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return Autocast


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendedTensor) else value


def _layout(tensor: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides; those of a size of one mean nothing."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return [(size, stride) for size, stride in pairs if size != 1]


def _where() -> str:
    """The innermost lines of the project's own code, innermost first."""
    frames = [
        frame
        for frame in traceback.extract_stack()
        if "/torch/" not in frame.filename and "/tests/gpu/" not in frame.filename
    ]
    ours = [frame for frame in frames if "lmoe_tune" in frame.filename]
    last = (ours or frames)[-3:]
    return " < ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(last)
    )
