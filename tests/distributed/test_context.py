"""Sequences cut over context ranks are the whole sequences: the trade of pieces for heads, attention, models, engines, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.data.batch import Batch
from megatron.data.cut_sequence import cut_sequence
from megatron.model.attention.head_exchange import HeadExchange
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.collectives import all_reduce
from megatron.mpu.groups import Group, ProcessGroups, build_process_groups, single_process_groups
from megatron.mpu.mappings import trade_pieces
from megatron.mpu.shard import shard_of
from megatron.mpu.topology import Topology
from tests.deepspeed_world import (
    DIVIDE_ALL,
    ROWS,
    Case,
    Pieces,
    assemble,
    assert_close,
    own_pieces,
    reference_run,
    start_engine,
)
from tests.distributed.test_model import with_padding_of
from tests.toy_model import global_batch
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model, parameters_by_name
from tests.unit.model.packed import ALONE, MASK_ALONE, TOGETHER, packed
from tests.worlds import run_world

# ---- the trade itself, and models, in fp64: one world of each size


@pytest.fixture(scope="module", params=[2, 4])
def report(request: pytest.FixtureRequest) -> list[dict[str, float]]:
    """By check, the largest error that each rank found."""
    return run_world(request.param, check_everything, request.param)


def check_everything(rank: int, size: int) -> dict[str, float]:
    groups = build_process_groups(Topology(context=size))
    errors = {
        **{f"trade {shape}": traded(groups.context, shape) for shape in ((size,), (4 * size, 3), (size, 2, 3, 5))},
        **{f"heads {heads}": exchanged(groups.context, *heads) for heads in HEADS},
        "indivisible": refused(groups.context),
    }
    layouts = {"": groups}
    if size == 4:
        layouts["tensor 2, "] = build_process_groups(Topology(context=2, tensor=2))
    for layout, these in layouts.items():
        for name in WITH_TENSOR_RANKS if layout else MODELS:
            settings, rules = MODELS[name]
            for in_sequence in (False, True) if these.tensor.size > 1 else (False,):
                key = f"model {layout}{'in sequence, ' if in_sequence else ''}{name}"
                errors[key] = modelled(these, settings, rules, sequence_parallel=in_sequence)
    return errors


def test_context_ranks_compute_what_one_process_computes(report: list[dict[str, float]]) -> None:
    for errors in report:
        assert not {
            name: error for name, error in errors.items() if error > (1e-10 if name.startswith("model") else 1e-12)
        }
        assert len(errors) >= 4 + len(HEADS) + len(MODELS)


def filled(*shape: int) -> Tensor:
    """Random values, the same on every rank."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def largest(*differences: Tensor) -> float:
    return max(float(difference.detach().abs().max()) for difference in differences)


def traded(group: Group, shape: tuple[int, ...]) -> float:
    """`trade_pieces` and its gradient against slices of what all ranks have."""
    of_ranks, upstream = filled(group.size, *shape), filled(group.size, *shape) + 1
    x = of_ranks[group.rank].clone().requires_grad_()
    result = trade_pieces(x, group)
    result.backward(upstream[group.rank])

    def piece_of_each(values: Tensor) -> Tensor:
        return torch.cat([of_rank.chunk(group.size)[group.rank] for of_rank in values])

    assert x.grad is not None
    return largest(
        result - piece_of_each(of_ranks), x.grad - piece_of_each(upstream), trade_pieces(result, group) - x.detach()
    )


HEADS = ((8, 8), (8, 4), (8, 2), (8, 1), (12, 6), (12, 4), (4, 4))
"""(query heads, key heads), of which a rank may get whole groups, part of one, or parts of two."""


def exchanged(group: Group, heads: int, kv_heads: int) -> float:
    """What attention's core is given and gives back, and all gradients, against whole tensors."""
    rows, length, width = 2, 8, 3
    exchange = HeadExchange(heads=heads, kv_heads=kv_heads, group=group)
    whole = [filled(rows, count, length, width) + place for place, count in enumerate((heads, kv_heads, kv_heads))]
    mine = [x.chunk(group.size, dim=2)[group.rank].clone().requires_grad_() for x in whole]
    inside = exchange.enter(*mine)
    share = heads // group.size
    # One key and value a query head says the same whatever the number of heads they are kept as.
    plain = [x.clone().requires_grad_() for x in whole]
    repeated = [x.repeat_interleave(heads // x.shape[1], dim=1).chunk(group.size, dim=1)[group.rank] for x in plain]
    errors = [
        x.repeat_interleave(share // x.shape[1], dim=1) - expected for x, expected in zip(inside, repeated, strict=True)
    ]
    weights = [filled(*x.shape) + group.rank for x in repeated]
    sum(
        (x.repeat_interleave(share // x.shape[1], dim=1) * w).sum() for x, w in zip(inside, weights, strict=True)
    ).backward()  # type: ignore[union-attr]
    sum((x * w).sum() for x, w in zip(repeated, weights, strict=True)).backward()  # type: ignore[union-attr]
    for local, full in zip(mine, plain, strict=True):
        assert local.grad is not None
        assert full.grad is not None
        errors.append(local.grad - all_reduce(full.grad, group).chunk(group.size, dim=2)[group.rank])

    mixed = whole[0].chunk(group.size, dim=1)[group.rank].clone().requires_grad_()
    left, upstream = exchange.leave(mixed), filled(length, rows, heads * width)
    left.backward(upstream.chunk(group.size)[group.rank])
    errors.append(left - whole[0].chunk(group.size, dim=2)[group.rank].permute(2, 0, 1, 3).flatten(2))
    by_heads = upstream.unflatten(2, (heads, width)).permute(1, 2, 0, 3).chunk(group.size, dim=1)[group.rank]
    assert mixed.grad is not None
    errors.append(mixed.grad - by_heads)
    return largest(*errors)


def refused(group: Group) -> float:
    with pytest.raises(ValueError, match=f"must be a multiple of {group.size}"):
        trade_pieces(torch.zeros(group.size + 1), group)
    with pytest.raises(ValueError, match=f"must be a multiple of {group.size}"):
        cut_sequence(replace(global_batch(0, ROWS), tokens=torch.zeros(ROWS, 2 * group.size + 1)), group)
    return 0.0


MODELS: dict[str, tuple[Mapping[str, Any], Any]] = {
    **{name: (settings, None) for name, settings in VARIANTS.items()},
    "documents, learned positions": ({}, ALONE),
    "documents, rotary, part of each head": (VARIANTS["pythia"], ALONE),
    "documents, flash and global, grouped": (VARIANTS["llama"], MASK_ALONE),
    "documents, window": ({**VARIANTS["pythia"], "sliding_window_width": 3}, ALONE),
    "documents, alibi": ({"pos_emb": "alibi", "num_kv_heads": 2, "sliding_window_width": 7}, MASK_ALONE),
    "documents that see each other": (VARIANTS["llama"], TOGETHER),
}
"""Settings, and the rules of packed documents if there are several in a row."""

WITH_TENSOR_RANKS = (
    *("gpt2", "pythia", "llama", "olmo2", "mpt"),
    *("documents, flash and global, grouped", "documents, window"),
)


def modelled(groups: ProcessGroups, settings: Mapping[str, Any], rules: Any, *, sequence_parallel: bool) -> float:
    """Largest error of logits, the loss summed over the ranks, and every gradient summed over them, against one process."""
    heads = {"hidden_size": 64, "num_attention_heads": 8}
    layout = {
        "model_parallel_size": groups.tensor.size,
        "context_parallel_size": groups.context.size,
        "global_num_gpus": groups.world.size,
        "sequence_parallel": sequence_parallel,
    }
    batch = packed(rules or TOGETHER)
    plain = built(build_args(**{**settings, **heads}), single_process_groups())
    expected = run(plain, batch, single_process_groups())
    model = built(build_args(**{**settings, **heads, **layout}), groups)
    found = run(model, cut_sequence(batch, groups.context), groups)
    columns = expected.logits.chunk(groups.tensor.size, dim=-1)[groups.tensor.rank]
    errors = [
        found.logits - columns.chunk(groups.context.size, dim=1)[groups.context.rank],
        found.loss - expected.loss,
    ]
    infos = {name: shard_of(value) for name, value in parameters_by_name(plain).items()}
    for name, value in parameters_by_name(model).items():
        whole = with_padding_of(expected.gradients[name], infos[name], shard_of(value))
        errors.append(found.gradients[name] - shard_of(value).cut(whole))
    return largest(*errors)


def built(args: Any, groups: ProcessGroups) -> SequentialModel:
    context = BuildContext(groups.tensor, torch.float64, context_group=groups.context)
    return build_model(args, context=context)


class Computed(NamedTuple):
    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def run(model: SequentialModel, batch: Batch, groups: ProcessGroups) -> Computed:
    logits = model(batch.tokens, batch.position_ids, document_ids=batch.document_ids)
    loss = masked_loss_sum(logits, batch.labels, batch.loss_mask, groups.tensor, VOCAB_SIZE)
    loss.backward()
    gradients = {
        name: all_reduce(value.grad, groups.context) if value.grad is not None else torch.zeros_like(value)
        for name, value in parameters_by_name(model).items()
    }
    return Computed(logits.detach(), all_reduce(loss.detach(), groups.context), gradients)


# ---- engines in fp32, against plain torch on one process; every layout loads what another one saved

STEPS = 2
FOUR_HEADS = {"num_attention_heads": 4}
GROUPED = {
    **FOUR_HEADS,
    "num_kv_heads": 2,
    "pos_emb": "rotary",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "mlp_multiple_of": 8,
    "attention_config": [[["flash", "global"], "all"]],
}
RECOMPUTE = {"checkpoint_activations": True, "checkpoint_num_layers": 2}

LAYOUTS = {
    "context 2, tied": Case(context=2, accumulation=2, tied=True, overrides=FOUR_HEADS),
    "context 2, stage 3, tied": Case(
        context=2, zero=3, tied=True, overrides={**GROUPED, **RECOMPUTE, "zero_optimization": DIVIDE_ALL}
    ),
    "context 4, stage 1, recomputing": Case(context=4, zero=1, accumulation=4, overrides={**GROUPED, **RECOMPUTE}),
    "context 2 x tensor 2 in sequence, stage 3": Case(
        context=2, tensor=2, zero=3, overrides={**GROUPED, "sequence_parallel": True, "zero_optimization": DIVIDE_ALL}
    ),
    "pipe 2 x context 2, tied": Case(
        pipe=2, context=2, accumulation=4, tied=True, overrides={**FOUR_HEADS, **RECOMPUTE}
    ),
    "data 2 x context 2, stage 2": Case(data=2, context=2, zero=2, accumulation=2, overrides=GROUPED),
}
LAYOUTS = {name: replace(case, gpt=True) for name, case in LAYOUTS.items()}


class Outcome(NamedTuple):
    """What one rank saw: losses and norms from the start, saved state, and a run that goes on from a checkpoint of one process."""

    steps: list[tuple[float, float | None]]
    saved: Pieces
    resumed: list[float]
    held: Pieces
    evaluation: tuple[float, float]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def outcomes(directory: Path) -> dict[str, list[Outcome]]:
    """By layout, of each rank; the layouts of one world size share a world."""
    run_world(1, save_on_one_process, directory)
    found = {}
    for size in (2, 4):
        names = [name for name, case in LAYOUTS.items() if case.world_size == size]
        of_ranks = run_world(size, train, names, directory)
        found |= {name: [of_rank[index] for of_rank in of_ranks] for index, name in enumerate(names)}
    return found


def plain_case(name: str) -> Case:
    """The model and batch of a layout on one process."""
    overrides = {key: value for key, value in LAYOUTS[name].overrides.items() if key != "sequence_parallel"}
    return Case(gpt=True, tied=LAYOUTS[name].tied, overrides=overrides)


def kind_of(name: str) -> str:
    return f"{'pos_emb' in LAYOUTS[name].overrides}-{LAYOUTS[name].tied}"


@cache
def reference(name: str) -> Any:
    return reference_run(plain_case(name), 2 * STEPS)


def save_on_one_process(rank: int, directory: Path) -> None:
    for name in {kind_of(name): name for name in LAYOUTS}.values():
        one = start_engine(plain_case(name))
        one.steps(0, STEPS)
        save_checkpoint(directory / kind_of(name), one.engine, iteration=STEPS, run_state={})


def train(rank: int, names: list[str], directory: Path) -> list[Outcome]:
    collected = []
    for name in names:
        first = start_engine(LAYOUTS[name])
        results = first.steps(0, STEPS)
        save_checkpoint(directory / name, first.engine, iteration=STEPS, run_state={})
        second = start_engine(LAYOUTS[name])
        load_checkpoint(directory / kind_of(name), second.engine)
        collected.append(
            Outcome(
                [(result.loss, result.grad_norm) for result in results],
                own_pieces(first.engine, for_saving=True),
                [result.loss for result in second.steps(STEPS, 2 * STEPS)],
                own_pieces(second.engine, for_saving=False),
                second.engine.evaluate_step(second.batches(2 * STEPS)),
            )
        )
    return collected


def test_the_parts_of_a_sequence_count_differently() -> None:
    halves = torch.stack(
        [global_batch(step, ROWS).loss_mask.unflatten(1, (2, -1)).sum((0, 2)) for step in range(STEPS)]
    )
    assert bool((halves[:, 0] != halves[:, 1]).all())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_as_one_process(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    of_ranks, plain = outcomes[name], reference(name)
    for each in of_ranks:
        assert each.steps == of_ranks[0].steps
        assert [loss for loss, _ in each.steps] == pytest.approx(plain.losses[:STEPS], rel=2e-6)
        assert [norm for _, norm in each.steps] == pytest.approx(plain.norms[:STEPS], rel=5e-6)
    saved, counts = assemble([each.saved for each in of_ranks])
    assert all(bool((count == 1).all()) for count in counts.values())
    assert_close(saved, plain.states[STEPS - 1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_checkpoint_of_one_process_goes_on_in_every_layout(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    of_ranks, plain = outcomes[name], reference(name)
    for each in of_ranks:
        assert each.resumed == pytest.approx(plain.losses[STEPS:], rel=2e-6)
        assert each.evaluation == pytest.approx(plain.evaluation, rel=2e-6)
    assert_close(assemble([each.held for each in of_ranks])[0], plain.states[-1])


def test_a_checkpoint_of_any_layout_goes_on_in_one_process(outcomes: dict[str, list[Outcome]], directory: Path) -> None:
    for name, losses in run_world(1, go_on, directory)[0].items():
        assert losses == pytest.approx(reference(name).losses[STEPS:], rel=2e-6)


def go_on(rank: int, directory: Path) -> dict[str, list[float]]:
    losses = {}
    for name in LAYOUTS:
        one = start_engine(plain_case(name))
        load_checkpoint(directory / name, one.engine)
        losses[name] = [result.loss for result in one.steps(STEPS, 2 * STEPS)]
    return losses
