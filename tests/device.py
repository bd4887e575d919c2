"""A second device without one: tensors that say that they are elsewhere, and hold their values on the CPU.

Operations of tensors on both devices fail, as on an accelerator; scalars, and what moves tensors, do not. So
a tensor that is left on the wrong device is seen where there is no other device.
"""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: Of kernels none is registered for it, and nothing but this file makes tensors with values on it.
ELSEWHERE = torch.device("meta")
_MOVES = ("_to_copy", "copy_", "to")
_INDEXES = ("index", "index_put", "index_put_")  # indices may lie on the CPU
_EMPTY = "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"  # each time otherwise


class WrongDeviceError(RuntimeError):
    """An operation was given tensors of two devices."""


class Away(Tensor):
    """A tensor on the other device; `held` are its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Away({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise WrongDeviceError("numpy reads tensors on the CPU alone")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise WrongDeviceError("numpy reads tensors on the CPU alone")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Made(TorchDispatchMode):
    """Makes tensors there that are asked for there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(issubclass(kind, Away) for kind in types) and _wanted(args, kwargs) == ELSEWHERE:
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


class _Read(TorchFunctionMode):
    """Reads Python's numbers here and sends them there: torch reads none for this device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            wanted = torch.device(kwargs.pop("device"))
            return func(*args, **kwargs).to(wanted)
        return func(*args, **kwargs)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the values, and its results where an accelerator would have them."""
    name = func.overloadpacket._qualified_op_name.split("::")[1]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = any(isinstance(tensor, Away) for tensor in tensors)
    here = [tensor for tensor in tensors if not isinstance(tensor, Away) and tensor.ndim]
    if away and here and name not in _MOVES + _INDEXES:
        raise WrongDeviceError(f"{name} of tensors on two devices: {[tuple(t.shape) for t in tensors]}")
    wanted = _wanted(args, kwargs)
    values = tree_map(_held, (args, kwargs))
    made = func(*values[0], **values[1])
    if name in _EMPTY:
        made.zero_()
    if name.endswith("_") and args and isinstance(args[0], Tensor):  # in its place
        return args[0]
    there = away if wanted is None else wanted == ELSEWHERE
    return tree_map(lambda leaf: Away(leaf) if isinstance(leaf, Tensor) and there else leaf, made)


def _held(leaf: Any) -> Any:
    """What an operation on the CPU is given instead."""
    if isinstance(leaf, Away):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _wanted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """The device that an operation is asked for, if it is."""
    return next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)), None)


def send(module: nn.Module) -> None:
    """Moves parameters and buffers; `Module.to` would ask for kernels of the other device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Away(parameter.data), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Away(buffer)


def _no_grad(mode: bool = True) -> Any:
    """Instead of inference mode, in which tensors of a class of one's own cannot be viewed."""
    return torch.no_grad() if mode else nullcontext()


@contextmanager
def elsewhere(pipeline: Any, but: Container[str] = ()) -> Iterator[Any]:
    """Within it the pipeline is on the other device, save the parts that are named in `but`."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and name not in but:
            send(part)
    # torch's meta device, which this stands on, is none that diffusers would compute on
    there = patch.object(DiffusionPipeline, "device", ELSEWHERE)
    with there, patch.object(torch, "inference_mode", _no_grad), _Made(), _Read():
        yield pipeline


def refuses(call: Callable[[], Any]) -> bool:
    """Whether a call mixes devices."""
    try:
        call()
    except WrongDeviceError:
        return True
    return False
