"""The smallest legal configuration, for tests to vary."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs

MINIMAL: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 32,
    "train_micro_batch_size_per_gpu": 2,
    "train_iters": 100,
}


def build(world_size: int | None = None, **keys: Any) -> NeoXArgs:
    """Arguments of the minimal configuration with some keys changed; None removes a key."""
    return NeoXArgs.from_dict({**MINIMAL, **keys}, world_size=world_size)


def problems(world_size: int | None = None, **keys: Any) -> tuple[str, ...]:
    """What is wrong with the minimal configuration after these changes."""
    with pytest.raises(ConfigError) as caught:
        build(world_size, **keys)
    return caught.value.problems


def problem(world_size: int | None = None, **keys: Any) -> str:
    """The only thing wrong with the minimal configuration after these changes."""
    found = problems(world_size, **keys)
    assert len(found) == 1, found
    return found[0]
