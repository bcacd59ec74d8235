"""How many bytes of tensors are alive at once, counted operation by operation: the same on every computer."""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Within: ``peak`` bytes at most were alive of what was made there. What an operation makes and frees inside itself
    is not seen."""

    def __init__(self):
        super().__init__()
        self.peak, self._made, self._total = 0, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in before:  # neither a view nor in place
                    self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self._total += storage.nbytes()
        if self._total > self.peak:  # which has yet to leave out what is gone
            self._made = {key: made for key, made in self._made.items() if not made[0].expired()}
            self._total = sum(nbytes for _, nbytes in self._made.values())
            self.peak = max(self.peak, self._total)
        return found
