"""What is planned to lie in host memory, and leaves the device for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.host_memory import peak_host_memory
from megatron.planning.memory.sizes import Sizes
from megatron.planning.memory.stage_activations import saved_bytes
from megatron.planning.memory.stage_memory import padded_rows, stage_layers
from tests.memory_census import SMALL, VOCABULARY

LAYOUT = Layout(micro_batch=2, recompute=True)
INPUT = 4 * 2 * 64 * 64
"""Bytes of the input of a block."""


def arguments(**settings: Any) -> NeoXArgs:
    return NeoXArgs.from_dict({**SMALL, **settings})


def kept_on_the_device(args: NeoXArgs, layout: Layout) -> int:
    """Of a micro-batch in the first stage."""
    layers = stage_layers(args, layout, padded_rows(args, layout, VOCABULARY))[0]
    return saved_bytes(args, layout, Sizes.of(args, layout, "cuda"), layers)


@pytest.mark.parametrize(
    ("settings", "layout", "inputs"),
    [
        ({}, LAYOUT, 0),
        ({"checkpoint_in_cpu": True}, LAYOUT, 4),
        ({"checkpoint_in_cpu": True}, replace(LAYOUT, recompute=False), 0),
        ({"checkpoint_in_cpu": True}, replace(LAYOUT, recompute_every=3), 2),
        ({"checkpoint_in_cpu": True, "partition_activations": True}, replace(LAYOUT, tensor=2), 2),
        ({"checkpoint_in_cpu": True}, replace(LAYOUT, tensor=2, sequence_parallel=True), 2),
        # The first of two stages holds two micro-batches of its two blocks.
        ({"checkpoint_in_cpu": True}, replace(LAYOUT, pipeline=2, accumulation=4), 4),
    ],
)
def test_inputs_of_recomputed_blocks_are_counted(settings: dict[str, Any], layout: Layout, inputs: int) -> None:
    args = arguments(**settings)
    assert peak_host_memory(args, layout, vocab_size=VOCABULARY) == inputs * INPUT
    if inputs:
        assert kept_on_the_device(args, layout) < kept_on_the_device(arguments(), layout) - INPUT


def test_inputs_divided_over_tensor_ranks_take_as_much_less_of_the_device() -> None:
    layout = replace(LAYOUT, tensor=2)
    whole, divided = (kept_on_the_device(arguments(partition_activations=choice), layout) for choice in (False, True))
    assert whole - divided == 4 * INPUT // 2
