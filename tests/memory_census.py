"""Bytes counted on real tensors: what an engine holds between steps, at most during one, and what autograd keeps of a forward pass.

Each memory (untyped storage) counts once, whatever views of it there are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from megatron.data.batch import Batch
from megatron.engine import zero_state
from megatron.engine.build import build_engine
from megatron.engine.model_loss import fuses_head, model_loss
from megatron.engine.native.engine import NativeEngine
from megatron.engine.protocol import Engine
from megatron.engine.stage import batch_tensors, model_inputs
from megatron.model.gpt import build_layer_specs
from megatron.model.kept_inputs import KeptInputs
from megatron.model.spec import DTYPES
from megatron.mpu.groups import ProcessGroups, build_process_groups
from megatron.mpu.random_bits import sample_keys
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import padded_rows
from megatron.training.objectives.next_token import NextTokenObjective
from tools.benchmark.peak import Peak

SMALL = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 64,
    "max_position_embeddings": 64,
    "train_micro_batch_size_per_gpu": 2,
    "make_vocab_size_divisible_by": 1,
    "train_iters": 10,
    "lr": 1e-4,
}
VOCABULARY = 512


def storages(tensors: Iterable[Tensor], *, without: frozenset[int] = frozenset()) -> dict[int, int]:
    """Bytes of every memory behind the tensors, by an identity."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage._cdata not in without:
            found[storage._cdata] = storage.nbytes()
    return found


def living_tensors() -> list[Tensor]:
    """Every tensor Python knows of in this process, without those that hold no memory."""
    gc.collect()
    tensors = [value for value in gc.get_objects() if issubclass(type(value), Tensor)]
    return [tensor for tensor in tensors if tensor.device.type != "meta"]


@dataclass(frozen=True)
class EngineBytes:
    """Between two steps: weights, gradients, optimizer, all of the engine's tensors together; peak: at most during a step; saved: what
    autograd keeps of this stage's layers and one micro-batch."""

    weights: int
    gradients: int
    optimizer: int
    everything: int
    peak: int
    saved: int


def count_engine(args: NeoXArgs) -> EngineBytes:
    """Build the engine of a configuration in this process's world, train three steps with it, and count."""
    groups = build_process_groups(
        Topology(args.pipeline_stages, args.data_parallel_size, args.model_parallel_size, args.context_parallel_size)
    )
    foreign = living_tensors()
    ignored = frozenset(storages(foreign))
    engine = _build(args, groups)
    batches = _batches(args) if engine.reads_data else None
    for _ in range(2):
        assert not engine.train_step(batches, lr=1e-4).skipped
    # Asynchronous communication holds its tensors until it is over, on a busy machine longer than a step needs them.
    peaks = []
    for _ in range(2):
        peak = Peak()
        peak.watch(tensor for tensor in living_tensors() if tensor.untyped_storage()._cdata not in ignored)
        resting = peak.now
        with peak:
            engine.train_step(batches, lr=1e-4)
        peaks.append(peak.bytes)
    weights, gradients, optimizer = _state(engine)
    del foreign
    saved = _saved_by_stage(args, engine)
    return EngineBytes(
        sum(weights.values()), sum(gradients.values()), sum(optimizer.values()), resting, min(peaks), saved
    )


def trained_engine(args: NeoXArgs) -> Engine:
    """The engine of a configuration without pipeline in this process's world, after a step."""
    engine = _build(args, build_process_groups(Topology(1, args.data_parallel_size, args.model_parallel_size)))
    engine.train_step(_batches(args), lr=1e-4)
    return engine


def _saved_by_stage(args: NeoXArgs, engine: Any) -> int:
    module = engine.model.train()
    batch = random_batch(args)
    objective = engine.objective
    if not args.is_pipe_parallel:
        if fuses_head(args, objective):
            return count_saved(lambda: model_loss(module, objective, batch, fused=True), module)
        return count_saved(lambda: module(batch.tokens, batch.position_ids, dropout_keys=batch.dropout_keys), module)
    module.loss_tensors = batch_tensors(batch)
    if module.is_first:
        inputs = model_inputs(batch)
    else:
        cut = args.model_parallel_size if args.sequence_parallel else 1
        shape = (
            args.seq_length // args.context_parallel_size // cut,
            args.train_micro_batch_size_per_gpu,
            args.hidden_size,
        )
        inputs = torch.zeros(shape, dtype=DTYPES[args.precision], requires_grad=True), *model_inputs(batch)[1:]
    return count_saved(lambda: module(inputs), module)


def _build(args: NeoXArgs, groups: ProcessGroups) -> Engine:
    rows = padded_rows(args, Layout.of(args), VOCABULARY)
    specs = build_layer_specs(args, vocab_size=VOCABULARY, padded_vocab_size=rows)
    objective = NextTokenObjective(group=groups.tensor, vocab_size=VOCABULARY)
    return build_engine(args, specs=specs, objective=objective, groups=groups, device="cpu")


def _batches(args: NeoXArgs) -> list[Batch]:
    return [random_batch(args) for _ in range(args.gradient_accumulation_steps)]


def random_batch(args: NeoXArgs, *, vocabulary: int = VOCABULARY, device: str = "cpu") -> Batch:
    """A rank's part of a micro-batch of random tokens."""
    shape = args.train_micro_batch_size_per_gpu, args.seq_length // args.context_parallel_size
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(vocabulary, shape, generator=generator)
    positions = torch.arange(shape[1]).expand(shape).contiguous()
    batch = Batch(*(tensor.to(device) for tensor in (tokens, tokens.clone(), torch.ones(shape), positions)))
    is_dropping = args.hidden_dropout or args.attention_dropout
    keys = sample_keys(range(shape[0]), seed=1, step=0).to(device)
    return replace(batch, dropout_keys=keys) if is_dropping else batch


def _state(engine: Any) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """The memory of weights, gradients and optimizer."""
    if isinstance(engine, NativeEngine):
        return _flat_state(engine)
    parameters, optimizer = list(engine.model.parameters()), engine._optimizer
    parts = [parameter.ds_tensor for parameter in parameters if hasattr(parameter, "ds_tensor")]
    weights = storages([*parameters, *parts])
    flats = [flat.values for flat in zero_state.flat_tensors(optimizer)]
    moments = [moment for flat in flats for moment in zero_state.moments(optimizer, flat).values()]
    accumulated = [*getattr(optimizer, "fp32_groups_gradients_flat", ())]
    if parts:
        accumulated.append(optimizer.grad_partitions_flat_buffer)
        buckets = [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
        accumulated += [bucket for bucket in buckets if bucket is not None]
    fresh = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return weights, storages([*accumulated, *fresh], without=frozenset(weights)), storages([*flats, *moments])


def _flat_state(engine: NativeEngine) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    weights = storages(bucket.weights for bucket in engine._buckets)
    gradients = storages(bucket.gradients for bucket in engine._buckets)
    masters = [bucket.master for bucket in engine._buckets]
    moments = [moment for master in masters for moment in engine._optimizer.moments(master).values()]
    return weights, gradients, storages([*masters, *moments], without=frozenset(weights))


def count_saved(forward: Callable[[], Any], module: nn.Module) -> int:
    """Bytes that autograd keeps of `forward`, without the parameters of `module`."""
    parameters = frozenset(storages(module.parameters()))
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage
        return tensor

    keep_input = KeptInputs._keep

    def keep_part(kept_inputs: KeptInputs, tensor: Tensor) -> Any:
        kept = keep_input(kept_inputs, tensor)
        keep(getattr(kept, "part", kept))
        return kept

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        patch.object(KeptInputs, "_keep", keep_part),  # whose hooks stand in the place of ours
    ):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())
