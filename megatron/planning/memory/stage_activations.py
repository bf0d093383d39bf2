"""Activations of a pipeline stage: what its layers keep of all micro-batches in flight, and what comes and goes while they run.

One forward, one backward in turn: stage i of p holds min(p - i, accumulation) micro-batches when it holds most.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.attention_types import WHOLE_BLOCKS
from megatron.planning.layout import Layout
from megatron.planning.memory.activations import (
    block_bytes,
    block_keeps_input,
    embedding_bytes,
    final_norm_bytes,
    head_bytes,
    loss_bytes,
    mlp_bytes,
)
from megatron.planning.memory.fused_head import fused_loss_bytes, fuses_head
from megatron.planning.memory.kept_by_attention import mask_bytes, written_bias_bytes
from megatron.planning.memory.sizes import INTEGER, WIDE, Sizes
from megatron.planning.model.experts import has_experts
from megatron.planning.model.recomputation import is_selective
from megatron.planning.model.shapes import LayerShape


@dataclass(frozen=True)
class StageActivations:
    """Bytes of one device.

    kept: of all micro-batches in flight; first: of what the last backward passes reach last; recomputed: of the blocks that are
    computed again together; working: gradients inside a block; loss: logits and what the loss makes of them, held_logits: logits that
    stay after it; standing: tables and the buffers of the exchange with other stages.
    """

    kept: int
    first: int
    recomputed: int
    working: int
    loss: int
    held_logits: int
    standing: int


def stage_activations(
    args: NeoXArgs, layout: Layout, sizes: Sizes, layers: Sequence[LayerShape], *, stage: int, columns: int
) -> StageActivations:
    """The activations of stage number `stage` with these layers. columns: local columns of the logits."""
    in_flight = min(layout.stages - stage, layout.accumulation)
    is_last = stage == layout.stages - 1
    blocks = blocks_of(layers)
    loss = held = 0
    if is_last and fuses_head(args):
        loss = fused_loss_bytes(sizes, columns=columns)
        if (
            stage > 0 and layout.recompute
        ):  # it is computed inside the stage, whose whole input is there until that is over
            loss += sizes.stream - kept_input_bytes(args, layout, sizes)
    elif is_last:
        # fp32 probabilities beside the logits, and in half precision their gradient in both.
        loss = loss_bytes(sizes, columns=columns)
        loss += sizes.tokens * columns * (WIDE + (sizes.number if sizes.is_half else 0))
        # The pipeline engine keeps the logits of the micro-batch before, and of this one while it runs backward.
        logits = sizes.number * sizes.tokens * columns
        held = logits * min(layout.accumulation, 2) if layout.pipeline else 0
        loss += logits if layout.pipeline and layout.accumulation > 1 else 0
    first = embedding_bytes(args, sizes) if stage == 0 else 0
    return StageActivations(
        kept=saved_bytes(args, layout, sizes, layers) * in_flight,
        first=first,
        recomputed=_recomputed_bytes(args, layout, sizes, blocks),
        working=_working_bytes(args, sizes, {args.attention_config[block] for block in blocks}),
        loss=loss,
        held_logits=held,
        standing=_rotary_table_bytes(args)
        + mask_bytes(args, sizes)
        + written_bias_bytes(args, sizes)
        + _exchange_bytes(layout, sizes, stage=stage, in_flight=in_flight),
    )


def saved_bytes(args: NeoXArgs, layout: Layout, sizes: Sizes, layers: Sequence[LayerShape]) -> int:
    """What the layers keep of one micro-batch, without the loss; the input of the stage included."""
    total = 0
    names = {layer.name for layer in layers}
    if "embedding" in names:
        total += embedding_bytes(args, sizes)
    if "norm" in names:
        total += final_norm_bytes(args, sizes)
    if "head" in names:
        total += head_bytes(args, sizes)
    blocks = blocks_of(layers)
    if not layout.recompute or is_selective(args):
        return total + _sum_of_blocks(args, sizes, blocks, is_without_scores=layout.recompute)
    runs = -(-len(blocks) // layout.recompute_every)
    # The positions are kept for the blocks; a learned embedding has counted rows made of them, not the positions themselves.
    return total + runs * kept_input_bytes(args, layout, sizes) + (INTEGER * sizes.tokens if runs else 0)


def kept_input_bytes(args: NeoXArgs, layout: Layout, sizes: Sizes) -> int:
    """What the device keeps of the input of blocks that are recomputed together."""
    if args.checkpoint_in_cpu and sizes.device != "cpu":
        return 0
    return input_part_bytes(args, layout, sizes)


def input_part_bytes(args: NeoXArgs, layout: Layout, sizes: Sizes) -> int:
    """This rank's part of such an input, wherever it is kept."""
    is_divided = args.partition_activations and not layout.sequence_parallel
    return -(-sizes.stream // layout.tensor) if is_divided else sizes.stream


def blocks_of(layers: Sequence[LayerShape]) -> list[int]:
    """The numbers, from 0, of the blocks among the layers."""
    return [layer.number - 2 for layer in layers if layer.name == "transformer"]


def _sum_of_blocks(args: NeoXArgs, sizes: Sizes, blocks: Sequence[int], *, is_without_scores: bool = False) -> int:
    """`block_bytes` of them all; blocks of the same kind keep the same."""
    costs: dict[tuple[str, bool], int] = {}
    total = 0
    for block in blocks:
        kind = _kind(args, block)
        if kind not in costs:
            costs[kind] = block_bytes(args, sizes, block, is_without_scores=is_without_scores)
        total += costs[kind]
    return total


def _kind(args: NeoXArgs, block: int) -> tuple[str, bool]:
    return args.attention_config[block], has_experts(args, block)


def _recomputed_bytes(args: NeoXArgs, layout: Layout, sizes: Sizes, blocks: Sequence[int]) -> int:
    """What the largest run of blocks that are computed again together keeps then, beside its input; or the largest core of attention."""
    if not layout.recompute or not blocks:
        return 0
    if is_selective(args):
        kinds = {_kind(args, block): block for block in blocks}.values()
        whole = (block_bytes(args, sizes, block) for block in kinds)
        kept = (block_bytes(args, sizes, block, is_without_scores=True) for block in kinds)
        return max(both - without for both, without in zip(whole, kept, strict=True))
    every = layout.recompute_every
    runs = {tuple(_kind(args, block) for block in run): run for run in _runs(blocks, every)}
    largest = max(_sum_of_blocks(args, sizes, run) for run in runs.values())
    if kept_input_bytes(args, layout, sizes) < sizes.stream:
        return largest  # the input is there once more, put together
    return largest - (sizes.stream if block_keeps_input(args, sizes, blocks[0]) else 0)


def _runs(blocks: Sequence[int], length: int) -> list[Sequence[int]]:
    return [blocks[begin : begin + length] for begin in range(0, len(blocks), length)]


def _working_bytes(args: NeoXArgs, sizes: Sizes, kinds: Set[str]) -> int:
    """What a block's backward pass has at once beyond what was kept: a gradient of the stream, and those of the MLP's inner features
    or, once what the MLP kept is free, of attention scores."""
    if not kinds:
        return 0
    inner = (2 if args.gated_activation else 1) * sizes.number * sizes.tokens * sizes.mlp_width
    without_scores = {*WHOLE_BLOCKS} if args.attention_dropout else {"flash", "flex", *WHOLE_BLOCKS}
    # Dropout draws its mask again beside the gradient of what it dropped.
    beside = 2 * WIDE if args.attention_dropout else sizes.number
    scores = (sizes.number + beside) * sizes.scores - mlp_bytes(args, sizes) if kinds - without_scores else 0
    return sizes.stream + max(inner, scores)


def _rotary_table_bytes(args: NeoXArgs) -> int:
    """Cosines and sines of every position, which all layers share."""
    if args.pos_emb != "rotary":
        return 0
    return 2 * WIDE * args.max_position_embeddings * int(args.head_dim * args.rotary_pct)


def _exchange_bytes(layout: Layout, sizes: Sizes, *, stage: int, in_flight: int) -> int:
    """What DeepSpeed keeps to exchange with the stages before and behind: of each micro-batch in flight a copy of what came in and what
    goes out, and a buffer for what arrives from either side. The last stage keeps the loss of the micro-batch before until it has the
    next one, and by it what came in then and the gradient that went back."""
    is_last = stage == layout.stages - 1
    before = (in_flight + 1 + 2 * is_last) * sizes.stream if stage > 0 else 0
    behind = 0 if is_last else (in_flight + 1) * sizes.stream
    return before + behind
