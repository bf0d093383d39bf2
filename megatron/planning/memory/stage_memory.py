"""Memory of every pipeline stage, in bytes a device, from the configuration and a layout.

A step fills memory most at one of five moments, each of which is added up; the fullest counts:

    loss       the last micro-batch in flight is forward: all activations are there, and logits, probabilities and their gradient
    backward   the backward pass begins: its first block is recomputed and differentiated
    last block the backward pass ends: its last block is, while all gradients are there
    reduce     gradients are complete and exchanged over the data x context ranks
    update     the optimizer runs

Not counted are the CUDA context, libraries' workspaces and gaps in the allocator's memory: `CUDA_ALLOWANCE` says how much to leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.derive import derive_padded_vocab_size
from megatron.planning.layout import Layout
from megatron.planning.memory.activations import head_bytes
from megatron.planning.memory.sizes import NUMBER_BYTES, Device, Sizes
from megatron.planning.memory.stage_activations import StageActivations, stage_activations
from megatron.planning.memory.zero import model_state
from megatron.planning.memory.zero_parts import Held, ModelState
from megatron.planning.model.parameters import layer_shapes
from megatron.planning.model.partition import partition
from megatron.planning.model.shapes import LayerShape, TensorShape

CUDA_ALLOWANCE = 2 * 2**30
"""Bytes of a GPU that tensors cannot have: its context and libraries' workspaces (about 1 GiB), and gaps between allocations."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes that one device of a pipeline stage holds when its memory is fullest.

    weights: in the model's precision; gradients: those of the micro-batch and accumulated ones; optimizer: fp32 weights and moments;
    activations: kept for the backward pass, recomputed ones included; logits: with what the loss makes of them; buffers: of
    collectives, of the exchange between stages, and temporary tensors.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers


def memory_by_stage(
    args: NeoXArgs, layout: Layout, *, vocab_size: int, device: Device = "cuda"
) -> tuple[StageMemory, ...]:
    """The memory of one device of each pipeline stage while training. vocab_size: rows of the model's vocabulary, which the layout pads.

    Raises ConfigError when the layers cannot be divided into that many stages.
    """
    rows = padded_rows(args, layout, vocab_size)
    sizes = Sizes.of(args, layout, device)
    columns = 1 if args.train_impl == "rm" else rows // layout.tensor
    stages = stage_layers(args, layout, rows)
    states = _states(args, layout, stages)
    return tuple(
        _fullest(args, layout, sizes, layers, state, stage=stage, columns=columns)
        for stage, (layers, state) in enumerate(zip(stages, states, strict=True))
    )


def peak_memory(args: NeoXArgs, layout: Layout, *, vocab_size: int, device: Device = "cuda") -> StageMemory:
    """The memory of one device of the fullest stage."""
    return max(memory_by_stage(args, layout, vocab_size=vocab_size, device=device), key=lambda stage: stage.total)


def padded_rows(args: NeoXArgs, layout: Layout, vocab_size: int) -> int:
    """Rows of the embedding under a layout."""
    return derive_padded_vocab_size(
        vocab_size, divisible_by=args.make_vocab_size_divisible_by, model_parallel_size=layout.tensor
    )


def stage_layers(args: NeoXArgs, layout: Layout, rows: int) -> list[list[LayerShape]]:
    """The layers of each stage, of a model with `rows` embedding rows."""
    layers = layer_shapes(args, vocab_size=rows)
    if layout.stages == 1:
        return [layers]
    bounds = partition(
        [layer.name for layer in layers],
        layout.stages,
        method=args.pipe_partition_method,
        count_parameters=lambda index: sum(tensor.local_elements(layout.tensor) for tensor in layers[index].tensors),
    )
    return [layers[begin:end] for begin, end in pairwise(bounds)]


def stage_tensors(layers: Sequence[LayerShape]) -> list[TensorShape]:
    """The parameters of a stage; those that two of its layers share once."""
    return [tensor for layer in _owners(layers) for tensor in layer.tensors]


def counted_tensors(layers: Sequence[LayerShape]) -> list[tuple[TensorShape, int]]:
    """As `stage_tensors`, those of equal blocks together: each with the number of them."""
    # Blocks of one kind have the very same tuple of tensors.
    kinds = {id(layer.tensors): layer.tensors for layer in layers}
    counts = Counter(id(layer.tensors) for layer in _owners(layers))
    return [(tensor, count) for kind, count in counts.items() for tensor in kinds[kind]]


def _owners(layers: Sequence[LayerShape]) -> list[LayerShape]:
    here = {layer.number for layer in layers}
    return [layer for layer in layers if layer.tied_to not in here]


def _states(args: NeoXArgs, layout: Layout, stages: Sequence[Sequence[LayerShape]]) -> list[ModelState]:
    """The state of each stage; most stages of a long pipeline have the same layers."""
    known: dict[frozenset[tuple[int, int]], ModelState] = {}
    states = []
    for layers in stages:
        kinds = frozenset(Counter(id(layer.tensors) for layer in layers).items())
        if kinds not in known:
            tensors = counted_tensors(layers)
            state = model_state(args, layout, tensors, tied=_tied_elements(layers, layout))
            known[kinds] = replace(state, weights=state.weights + _reference_weights(args, layout, tensors))
        states.append(known[kinds])
    return states


def _tied_elements(layers: Sequence[LayerShape], layout: Layout) -> int:
    here = {layer.number for layer in layers}
    return sum(
        tensor.local_elements(layout.tensor) for layer in layers if layer.tied_to in here for tensor in layer.tensors
    )


def _fullest(
    args: NeoXArgs,
    layout: Layout,
    sizes: Sizes,
    layers: Sequence[LayerShape],
    state: ModelState,
    *,
    stage: int,
    columns: int,
) -> StageMemory:
    made = stage_activations(args, layout, sizes, layers, stage=stage, columns=columns)
    left = round(made.kept * (1 - state.bucket_share)) + made.first
    head = sizes.number * sizes.hidden * columns if made.loss and layout.accumulation == 1 else 0
    kept = made.kept - (head_bytes(args, sizes) if made.loss else 0)
    last = Held(max(state.reducing.gradients, state.starting.gradients), state.starting.buffers)
    moments = (
        _moment(state, state.accumulating, made, activations=made.kept, logits=made.loss),
        _moment(state, state.starting.more(head), made, activations=kept, logits=made.held_logits, in_block=True),
        _moment(state, last, made, activations=left, logits=made.held_logits, in_block=True),
        _moment(state, state.reducing, made, activations=left, logits=made.held_logits),
        _moment(state, state.stepping, made, activations=0, logits=made.held_logits),
    )
    return max(moments, key=lambda moment: moment.total)


def _moment(
    state: ModelState, held: Held, made: StageActivations, *, activations: int, logits: int, in_block: bool = False
) -> StageMemory:
    """in_block: while a block is differentiated, after being computed again under recomputation."""
    return StageMemory(
        weights=state.weights,
        gradients=held.gradients,
        optimizer=state.optimizer,
        activations=activations + (made.recomputed if in_block else 0),
        logits=logits,
        buffers=held.buffers + made.standing + (made.working if in_block else 0),
    )


def _reference_weights(args: NeoXArgs, layout: Layout, tensors: Sequence[tuple[TensorShape, int]]) -> int:
    """Training from preferences compares with a model that is not trained: its weights, whole on every data-parallel rank; not built yet."""
    if args.train_impl not in ("dpo", "kto", "reinforce") or (args.train_impl == "dpo" and args.dpo_reference_free):
        return 0
    return sum(tensor.local_elements(layout.tensor) * count for tensor, count in tensors) * NUMBER_BYTES[args.precision]
