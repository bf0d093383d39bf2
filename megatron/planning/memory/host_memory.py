"""What a process keeps in host memory on behalf of its device, in bytes."""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.sizes import Sizes
from megatron.planning.memory.stage_activations import blocks_of, input_part_bytes
from megatron.planning.memory.stage_memory import counted_tensors, padded_rows, stage_layers
from megatron.planning.memory.zero import model_state
from megatron.planning.model.recomputation import is_selective


def peak_host_memory(args: NeoXArgs, layout: Layout, *, vocab_size: int) -> int:
    """Of the stage with most: offloaded optimizer states, and inputs of recomputed blocks of all micro-batches in flight."""
    sizes = Sizes.of(args, layout, "cuda")
    moves_inputs = args.checkpoint_in_cpu and layout.recompute and not is_selective(args)
    most = 0
    for stage, layers in enumerate(stage_layers(args, layout, padded_rows(args, layout, vocab_size))):
        runs = -(-len(blocks_of(layers)) // layout.recompute_every) if moves_inputs else 0
        inputs = runs * input_part_bytes(args, layout, sizes) * min(layout.stages - stage, layout.accumulation)
        most = max(most, inputs + model_state(args, layout, counted_tensors(layers)).host)
    return most
