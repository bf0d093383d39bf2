"""Which files of a repository belong to a model: its configuration, its tokenizer, and its weights in one format."""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from megatron.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Whole, the preferred one first; divided, an index of the same name says which files there are."""
SMALL_FILES = (
    CONFIG,
    "generation_config.json",
    "conversion_report.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    *(f"{name}.index.json" for name in WEIGHTS),
)
"""What is needed besides the weights. Programs that some repositories bring along are never downloaded."""
_WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")


def is_model_file(name: str) -> bool:
    """Whether loading a model may read this file; a card, a licence or a picture it does not."""
    return name in SMALL_FILES or is_weight_file(name)


def is_weight_file(name: str) -> bool:
    """Whether a file holds weights, or says which files do."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in _WEIGHT_PATTERNS)


def weight_files(names: Collection[str], directory: Path, *, where: str) -> list[str]:
    """The files with the weights of a model whose files are `names`, in the first of the formats that it has.

    directory: holds the small files. Raises CheckpointError when there are no weights, or not all that an index lists.
    """
    for whole in WEIGHTS:
        if whole in names:
            return [whole]
        index = f"{whole}.index.json"
        if index in names:
            parts = _indexed(directory / index, where=where)
            missing = sorted(set(parts) - set(names))
            if missing:
                raise CheckpointError(f"{where} lacks {missing[0]}, which its {index} lists: it is not complete")
            return parts
    held = ", ".join(sorted(names)[:12]) or "nothing"
    raise CheckpointError(
        f"{where} has no weights of a kind that is read ({' or '.join(WEIGHTS)}, whole or divided): it holds {held}"
    )


def _indexed(path: Path, *, where: str) -> list[str]:
    try:
        weight_map: dict[str, Any] = json.loads(path.read_bytes())["weight_map"]
        return sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{where}: {path.name} is no index of weights (JSON with a weight_map)") from None
