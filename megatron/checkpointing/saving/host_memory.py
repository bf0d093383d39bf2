"""Host memory that is there before it is needed: fresh pages cost two to three times the copy that is written into them.

Loader processes that are forked later do not get it: else the next write to each page would copy it, and so take the memory twice.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_PAGE = mmap.PAGESIZE


def host_memory(size: int, *, device: torch.device) -> Tensor:
    """`size` bytes of host memory, all of whose pages are there; page-locked when `device`, whose tensors go in, is a GPU.

    Raises OSError or RuntimeError when there is not so much.
    """
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTFORK"):  # Linux
        memory.madvise(mmap.MADV_DONTFORK)
    content = torch.frombuffer(memory, dtype=torch.uint8)
    content.numpy()[::_PAGE] = 0
    if device.type == "cuda":
        # torch's own page-locked memory comes in powers of two. Of a thread's devices only the one that is in use anyway may be woken up.
        with torch.cuda.device(device):
            failure = torch.cuda.cudart().cudaHostRegister(content.data_ptr(), content.numel(), 0)
        if int(failure) != 0:
            raise RuntimeError(f"{size} bytes of host memory cannot be page-locked (CUDA error {int(failure)})")
    return content
