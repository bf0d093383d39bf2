"""What weights are read from, whatever program wrote them: full tensors under our names, one at a time."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from megatron.checkpointing.state_file import Shapes


class TensorSource(Protocol):
    """Tensors by the names that our checkpoints give them (`"2.attention.dense.weight/weight"`, `".../exp_avg"`).

    description: what this is, for messages ("models/x, a LlamaForCausalLM of Hugging Face"); shapes: the full shape of every tensor, without
    vocabulary padding.
    """

    @property
    def description(self) -> str: ...

    @property
    def shapes(self) -> Shapes: ...

    def read(self, name: str) -> Tensor:
        """A full tensor on the CPU, as it is stored; nothing else is kept in memory. Raises KeyError, and CheckpointError when it is damaged."""
        ...
