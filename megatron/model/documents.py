"""The documents of packed samples, in the forms in which attention cores ask for them: a token sees earlier ones of its own document.

One object serves all layers of a pipeline stage, so that each form is made once a micro-batch and kept once for the backward pass.

Shapes: `b` micro-batch, `s` sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from megatron.model.attention.mask import causal_mask

Made = TypeVar("Made")


class Documents:
    """numbers: int [b, s], which document each token belongs to; they rise along a row and begin anew in the next."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        self._made: dict[object, Any] = {}

    @classmethod
    def of(cls, numbers: Tensor | None) -> Documents | None:
        """The documents of these numbers, None where a row is one document."""
        return None if numbers is None else cls(numbers)

    def hidden_keys(self, window: int | None) -> Tensor:
        """bool [b, 1, s, s], true where a query does not see a key: a later one, of another document, or beyond the window."""
        return self.once(("hidden", window), lambda: self._hide(window))

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[b, 1, s, s] to be added to scores: -infinity at `hidden_keys`, 0 elsewhere."""

        def build() -> Tensor:
            hidden = self._hide(window)
            return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))

        return self.once(("bias", window, dtype), build)

    def cumulative_lengths(self) -> Tensor:
        """int32 [documents + 1]: where documents begin when the rows are laid end to end, and where the last one ends."""
        return self.once("lengths", self._find_borders)

    @cached_property
    def lengths(self) -> list[list[int]]:
        """Tokens of each document, row by row."""
        borders = self.cumulative_lengths().tolist()
        rows: list[list[int]] = [[] for _ in self.numbers]
        for begin, end in pairwise(borders):
            rows[begin // self.numbers.shape[1]].append(end - begin)
        return rows

    def once(self, key: object, build: Callable[[], Made]) -> Made:
        """What `build` makes, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = build()
        made: Made = self._made[key]
        return made

    def _hide(self, window: int | None) -> Tensor:
        length = self.numbers.shape[1]
        seen = causal_mask(length, length, window=window, device=self.numbers.device)
        is_own = self.numbers[:, None, :, None] == self.numbers[:, None, None, :]
        return ~(seen & is_own)

    def _find_borders(self) -> Tensor:
        is_start = torch.ones_like(self.numbers, dtype=torch.bool)
        is_start[:, 1:] = self.numbers[:, 1:] != self.numbers[:, :-1]
        starts = is_start.flatten().nonzero().flatten()
        end = torch.tensor([self.numbers.numel()], device=starts.device)
        return torch.cat((starts, end)).to(torch.int32)
