"""Copies of a state on the GPU: page-locked, as it was when it was asked for, whatever is computed next."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.engine.protocol import FullTensor, Piece

pytestmark = pytest.mark.gpu

BYTES = 1 << 28


def state_of(flat: torch.Tensor) -> dict[str, FullTensor]:
    """Two views of one tensor, one of them strided."""
    views = {"0/weight": flat[: 1 << 20].view(1 << 10, 1 << 10)[:, 3:], "1/weight": flat[1 << 20 :]}
    return {name: FullTensor(tuple(view.shape), (Piece((0,) * view.dim(), view),)) for name, view in views.items()}


def test_a_copy_is_the_state_between_the_work_before_and_the_work_after(device: torch.device) -> None:
    flat = torch.zeros(BYTES // 4, device=device)
    copies = HostCopies()
    copies.prepare(state_of(flat))
    for number in (1.0, 2.0):
        flat.fill_(number)  # still to be done when the copy is asked for
        copied = copies.take(state_of(flat))
        flat.fill_(-1.0)
        tensors = [piece.tensor for full in copied.values() for piece in full.pieces]
        assert all(tensor.device.type == "cpu" for tensor in tensors)
        assert all(bool((tensor == number).all()) for tensor in tensors)


def test_a_copy_takes_the_time_of_a_page_locked_memcpy(device: torch.device) -> None:
    flat = torch.randn(BYTES // 4, device=device)
    copies = HostCopies()
    copies.take(state_of(flat))
    pinned = torch.empty(BYTES // 4, pin_memory=True)

    def plain() -> None:
        pinned.copy_(flat, non_blocking=True)
        torch.cuda.synchronize(device)

    assert seconds(lambda: copies.take(state_of(flat))) < 1.3 * seconds(plain)


def seconds(action: Callable[[], object]) -> float:
    """The least of a few runs."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)
