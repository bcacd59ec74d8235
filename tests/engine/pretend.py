"""A GPU for machines that have none: a device of its own, whose tensors lie on the CPU behind its back.

Within `PretendGpu` an operation that is given tensors of both devices is refused, as CUDA refuses it, and what is made
on `GPU` stays there until it is fetched. The kernels are the CPU's, so that results are the CPU's to the bit, and every
number that a step makes on the wrong device fails. What it cannot tell: speed, memory, streams, CUDA's own rounding.

PyTorch's FakeTensorMode does the same without numbers, which the loop needs: it looks at losses.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyPrivateUse1Hook, _setup_privateuseone_for_python_backend

from sparsezo_gui.engine.frozen import FrozenModel

# CUDA takes tensors of both devices here: copies, and indices that lie on the CPU.
CROSSING = {"aten::copy_", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}


class _Hook(_DummyPrivateUse1Hook):
    """Nobody who asks PyTorch for accelerators finds this one."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return False


_setup_privateuseone_for_python_backend("pretended", hook=_Hook())
torch.pretended.get_amp_supported_dtype = lambda: [torch.bfloat16]  # asked for where a step is computed again
GPU = torch.device("pretended", 0)


class OnGpu(Tensor):
    """A tensor of `GPU`; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        strided = held.layout == torch.strided  # the wrapper of a sparse one says no more than its shape
        place = {"strides": held.stride(), "storage_offset": held.storage_offset()} if strided else {}
        made = Tensor._make_wrapper_subclass(cls, held.size(), **place, dtype=held.dtype, device=GPU)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:  # PyTorch's own refuses subclasses
        return self.held.tolist()


class PretendGpu(TorchDispatchMode):
    """Within: `GPU` is there."""

    def __enter__(self) -> PretendGpu:
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) comes by here only then
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, device = func._schema.name, kwargs.get("device")
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, OnGpu)]
    # A number from the CPU may meet what is on a GPU.
    others = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
    if ours and others and name not in CROSSING:
        raise RuntimeError(f"{name} was given tensors on the CPU and on the GPU")
    found = func(*tree_map(_held, args), **{**tree_map(_held, kwargs), **_pageable(kwargs)})
    onto = device.type == GPU.type if device is not None else bool(ours) and name != "aten::_local_scalar_dense"
    known = {id(each.held): each for each in ours}  # what came in may be what goes out

    def back(value: Any) -> Any:
        if not onto or not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else OnGpu(value)

    return tree_map(back, found)


def _held(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, OnGpu) else value


def _pageable(kwargs: dict[str, Any]) -> dict[str, bool]:
    return {"pin_memory": False} if "pin_memory" in kwargs else {}


def moved(model: FrozenModel) -> FrozenModel:
    """A copy of ``model`` on `GPU`."""
    module = copy.deepcopy(model.module)
    layers = {name: module.get_submodule(name.removesuffix(".weight")) for name in model.layers}
    for layer in layers.values():
        layer.hold(layer.frozen.to(GPU))
        layer.bias = None if layer.bias is None else layer.bias.to(GPU)
    made: dict[Tensor, nn.Parameter] = {}  # tied ones stay tied
    for part in module.modules():
        for name, each in part._parameters.items():
            if each is not None:
                part._parameters[name] = made.setdefault(each, nn.Parameter(each.data.to(GPU), requires_grad=False))
        for name, each in part._buffers.items():
            part._buffers[name] = None if each is None else each.to(GPU)
    return dataclasses.replace(model, module=module, layers=layers, device=GPU)
