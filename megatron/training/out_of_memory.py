"""Out of memory on a device, told with the plan's numbers: what fills the memory, and the smallest change that should fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch

from megatron import text
from megatron.errors import NeoXError
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.relief import HEADROOM, smallest_relief
from megatron.planning.memory.stage_memory import CUDA_ALLOWANCE, peak_memory
from megatron.planning.model.vocabulary import find_vocabulary


@contextmanager
def explained_out_of_memory(args: NeoXArgs) -> Iterator[None]:
    """Turns torch's OutOfMemoryError into a NeoXError that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory if _has_device() else None
        raise NeoXError(out_of_memory_message(args, str(error), device_bytes=memory)) from error


def out_of_memory_message(args: NeoXArgs, complaint: str, *, device_bytes: int | None) -> str:
    """complaint: torch's message; device_bytes: memory of the device, None when that is not known."""
    vocab_size = find_vocabulary(args).size
    planned = peak_memory(args, Layout.of(args), vocab_size=vocab_size)
    parts = sorted(((getattr(planned, field.name), field.name) for field in fields(planned)), reverse=True)
    usable = planned.total if device_bytes is None else device_bytes - CUDA_ALLOWANCE
    relief = smallest_relief(args, vocab_size=vocab_size, most=int(min(usable, planned.total) * HEADROOM))
    device = "" if device_bytes is None else f" of {text.memory(device_bytes)}"
    change = (
        "no setting of this layout is enough: use more tensor or context ranks, pipeline stages or devices (deepy.py plan proposes some)"
        if relief is None
        else f"the smallest change that should fit ({text.memory(relief.total)}): {' '.join(relief.words)}"
    )
    return (
        f"the device{device} ran out of memory: {complaint.partition('. GPU')[0]}. By the plan a device of the fullest stage needs "
        f"{text.memory(planned.total)}: {', '.join(f'{name} {text.memory(size)}' for size, name in parts if size)}; {change}"
    )


def _has_device() -> bool:
    return torch.cuda.is_available()
