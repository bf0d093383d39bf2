"""Whether an exported directory says by itself what was to be written: what numbers do not show, programs that read it believe all the same."""

from __future__ import annotations

from pathlib import Path

import torch

from megatron.checkpointing.names import dtype_name
from megatron.conversion.mapping.architecture import Architecture, differences
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.errors import CheckpointError

_DTYPE_KEYS = ("dtype", "torch_dtype")


def check_exported(directory: Path, architecture: Architecture, *, dtype: torch.dtype) -> None:
    """Open `directory` as any model of transformers. Raises CheckpointError when it is none, or another than this architecture in this dtype."""
    source = HuggingFaceSource(directory)
    name = dtype_name(dtype)
    wrong = [
        *(
            f"{key} {theirs!r} where {ours!r} belongs"
            for key, (ours, theirs) in differences(architecture, source.architecture).items()
        ),
        *(
            f"{key} {source.config.get(key)!r} where {name!r} belongs"
            for key in _DTYPE_KEYS
            if source.config.get(key) != name
        ),
    ]
    if wrong:
        raise CheckpointError(f"the export was not written as it should be: it has {', '.join(wrong)}")
