"""`config.json` and `generation_config.json` of an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron.checkpointing.files import write_durably
from megatron.checkpointing.names import dtype_name
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that transformers wants to know; None where there is no such token, or no tokenizer. end: some models have several."""

    begin: int | None = None
    end: int | list[int] | None = None
    padding: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SpecialTokens:
        """Those of a `config.json`."""
        return cls(config.get("bos_token_id"), config.get("eos_token_id"), config.get("pad_token_id"))

    @property
    def keys(self) -> dict[str, int | list[int] | None]:
        """As configurations have them. They are written even where there is none: transformers puts others in the place of missing ones."""
        return {"bos_token_id": self.begin, "eos_token_id": self.end, "pad_token_id": self.padding}


def write_configs(
    directory: Path, architecture: Architecture, family: Family, *, dtype: torch.dtype, tokens: SpecialTokens
) -> str:
    """Write both; the class of transformers. Raises CheckpointError when the family cannot express the architecture."""
    name = dtype_name(dtype)
    # Versions before 5 and other programs know the dtype by its older key.
    config = {**family.config(architecture), **tokens.keys, "dtype": name, "torch_dtype": name, "use_cache": True}
    _write(directory / CONFIG, config)
    if architecture.train_impl != "rm":
        _write(directory / GENERATION_CONFIG, {"do_sample": False, **tokens.keys})
    return str(config["architectures"][0])


def _write(path: Path, content: dict[str, object]) -> None:
    write_durably(path, (json.dumps(content, indent=2) + "\n").encode())
