"""The most memory there was at once in tensors on the CPU, where no allocator keeps statistics."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """The most bytes there were at once, of tensors made inside and of those given to `watch`; forward and backward pass alike.

    Each memory (untyped storage) counts once, whatever views of it there are; meta tensors have none. What an operation allocates and frees by itself is not
    seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.now = 0
        self._living: dict[int, int] = {}

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count these tensors' memory from now on, until it is freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._living or size == 0 or tensor.is_meta:
                continue
            self._living[key] = size
            weakref.finalize(storage, self._forget, key).atexit = False
            self.now += size
            self.bytes = max(self.bytes, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self._living.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.watch(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result
