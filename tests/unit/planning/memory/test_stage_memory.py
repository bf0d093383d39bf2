"""Planned memory: what autograd really keeps on one process, and how the plan answers to the layout."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from megatron.model.attention.blockwise import blockwise_attention
from megatron.model.gpt import build_layer_specs
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import DTYPES, BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.activations import loss_bytes
from megatron.planning.memory.kept_by_attention import mask_bytes, written_bias_bytes
from megatron.planning.memory.sizes import Sizes
from megatron.planning.memory.stage_activations import saved_bytes
from megatron.planning.memory.stage_memory import StageMemory, memory_by_stage, peak_memory, stage_layers
from megatron.planning.model.parameters import count_parameters
from tests.memory_census import SMALL, VOCABULARY, count_saved, random_batch
from tests.unit.planning.builders import unbuilt
from tools.benchmark.memory import run_apart

ROTARY = {"pos_emb": "rotary"}
ALIBI = {"pos_emb": "alibi"}
FLASH = {"attention_config": [[["flash"], "all"]]}
GROUPED = {"num_kv_heads": 2}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
EVERY_HEAD = {"use_qk_layernorm": True, "qk_layernorm_scope": "head"}
ALL_HEADS = {"use_qk_layernorm": True, "qk_layernorm_scope": "all_heads"}
RECOMPUTE = {"checkpoint_activations": True}
SELECTIVE = {**RECOMPUTE, "recompute_granularity": "selective"}

KEPT: tuple[dict[str, Any], ...] = (
    {},
    FLASH,
    ROTARY,
    {**ROTARY, **FLASH},
    {**ROTARY, **FLASH, "rotary_pct": 0.5},
    {**ROTARY, **FLASH, "sdpa_backend": "flash"},
    {**ROTARY, **GROUPED},
    {**ROTARY, **GROUPED, **FLASH},
    {**ROTARY, **GROUPED, **FLASH, "head_dim": 32, "rotary_pct": 0.25},
    {"pos_emb": "none", **FLASH, "sliding_window_width": 16},
    ALIBI,
    {**ALIBI, **FLASH, **GROUPED},
    {**ALIBI, **SELECTIVE, **DROPOUT, **FLASH, "sliding_window_width": 16},
    {**EVERY_HEAD, **GROUPED},
    {**EVERY_HEAD, **ROTARY, **FLASH, "norm": "rmsnorm"},
    {**ALL_HEADS, **ROTARY, **FLASH, "norm": "rmsnorm", "norm_position": "post"},
    {**ALL_HEADS, **ROTARY, **GROUPED},
    {"norm": "rmsnorm", "norm_position": "post", "no_weight_tying": True},
    {"norm": "rmsnorm", "gpt_j_residual": True},
    {"norm": "scalenorm", "gpt_j_residual": True, "gpt_j_tied": True},
    {"norm": "non_parametric_layernorm", "apply_query_key_layer_scaling": True},
    DROPOUT,
    {**DROPOUT, **FLASH},
    {**DROPOUT, **FLASH, **GROUPED, **ROTARY},
    {**DROPOUT, "gpt_j_residual": True},
    *(
        {"activation": name}
        for name in ("relu", "silu", "softsign", "mish", "geglu", "reglu", "swiglu", "bilinear", "glu")
    ),
    RECOMPUTE,
    {**RECOMPUTE, **ROTARY, "checkpoint_num_layers": 3},
    {**RECOMPUTE, **DROPOUT, "norm": "rmsnorm", "checkpoint_num_layers": 2},
    SELECTIVE,
    {**SELECTIVE, **DROPOUT, **FLASH, **GROUPED, **ROTARY},
    {**SELECTIVE, **ROTARY, **FLASH},
    {**SELECTIVE, **EVERY_HEAD, **GROUPED, "apply_query_key_layer_scaling": True},
)


def arguments(**settings: Any) -> NeoXArgs:
    return NeoXArgs.from_dict({**SMALL, **settings})


@pytest.mark.parametrize("precision", ["fp32", "bfloat16"])
@pytest.mark.parametrize("settings", KEPT, ids=lambda settings: ", ".join(map(str, settings)) or "gpt2")
def test_autograd_keeps_what_is_planned(settings: dict[str, Any], precision: str) -> None:
    """Of the layers alone and of the layers with the loss, so that what the loss keeps is compared as well."""
    args = arguments(precision=precision, num_layers=3, fused_linear_cross_entropy=False, **settings)
    layout, batch = Layout.of(args), random_batch(args)
    recomputes_blocks = layout.recompute and args.recompute_granularity == "full"
    model = SequentialModel(
        build_layer_specs(args, vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY),
        BuildContext(dtype=DTYPES[precision]),
        seed=1,
        checkpoint_num_layers=layout.recompute_every if recomputes_blocks else 0,
    )
    sizes = Sizes.of(args, layout, "cpu")
    layers = saved_bytes(args, layout, sizes, stage_layers(args, layout, VOCABULARY)[0])
    layers += 0 if recomputes_blocks else mask_bytes(args, sizes)

    def forward() -> torch.Tensor:
        logits: torch.Tensor = model(batch.tokens, batch.position_ids, dropout_keys=batch.dropout_keys)
        return logits

    def loss() -> torch.Tensor:
        return masked_loss_sum(forward(), batch.labels, batch.loss_mask, SINGLE, VOCABULARY)

    assert layers == pytest.approx(count_saved(forward, model), rel=0.003)
    assert layers + loss_bytes(sizes, columns=VOCABULARY) == pytest.approx(count_saved(loss, model), rel=0.003)


LARGE = {
    **SMALL,
    "num_layers": 24,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "seq_length": 2048,
    "max_position_embeddings": 2048,
    "train_micro_batch_size_per_gpu": 4,
    "precision": "bfloat16",
    "pos_emb": "rotary",
    **FLASH,
}


def planned(layout: Layout, **settings: Any) -> tuple[StageMemory, ...]:
    return memory_by_stage(NeoXArgs.from_dict({**LARGE, **settings}), layout, vocab_size=50257)


def test_a_bf16_model_holds_eighteen_bytes_a_parameter_between_steps() -> None:
    """2 weights, 4 gradients, 4 fp32 weights and 8 moments; and 2 for the gradients of a backward pass."""
    args = NeoXArgs.from_dict(LARGE)
    parameters = count_parameters(args, vocab_size=50257)
    memory = planned(Layout())[0]
    assert memory.weights == pytest.approx(2 * parameters, rel=1e-5)
    assert memory.optimizer == pytest.approx(12 * parameters, rel=1e-5)
    assert memory.gradients in (pytest.approx(4 * parameters, rel=1e-5), pytest.approx(6 * parameters, rel=1e-5))


@pytest.mark.parametrize(
    ("settings", "device", "mask", "bias"),
    [
        ({}, "cuda", 2, 0),
        ({"reset_attention_mask": True}, "cuda", 4 * 2, 0),
        ({}, "cpu", 0, 0),
        ({"sdpa_backend": "flash"}, "cpu", 4, 0),
        ({"attention_config": [[["global"], "all"]]}, "cuda", 0, 4),
        ({"attention_config": [[["global"], "all"]], "reset_attention_mask": True}, "cuda", 0, 4 * 4),
        ({"attention_config": [[["flex"], "all"]]}, "cuda", 0, 0),
        (ROTARY, "cuda", 0, 0),
    ],
)
def test_distances_are_one_tensor_of_scores_for_all_layers(
    settings: dict[str, Any], device: str, mask: int, bias: int
) -> None:
    """In bytes for each score of a row; packed documents that do not see each other have one of each of the four rows."""
    args = NeoXArgs.from_dict({**LARGE, **ALIBI, **settings})
    sizes = Sizes.of(args, Layout.of(args), device)
    row = 16 * 2048**2
    assert (mask_bytes(args, sizes), written_bias_bytes(args, sizes)) == (mask * row, bias * row)


@pytest.mark.parametrize(("length", "window"), [(300, None), (300, 50), (300, 299), (100, 20)])
def test_weights_of_blocks_are_those_that_are_kept(length: int, window: int | None) -> None:
    """Of a core alone, whose heads have 48 channels: no longer sequence than 384 keeps them."""
    head, kept = 48, 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes if tensor.shape[-1] != head else 0
        return tensor

    query, key = (torch.randn(2, heads, length, head).bfloat16().requires_grad_() for heads in (4, 2))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        blockwise_attention(query, key, key, window=window, keep_weights=True)
    settings = {"sliding_window_width": window, "seq_length": length, "max_position_embeddings": length}
    shape = {"num_attention_heads": 4, "hidden_size": 4 * head, "train_micro_batch_size_per_gpu": 2}

    def planned_bytes(**more: Any) -> int:
        args = arguments(precision="bfloat16", num_kv_heads=2, **FLASH, **settings, **shape, **more)
        layout = Layout.of(args)
        return saved_bytes(args, layout, Sizes.of(args, layout, "cpu"), stage_layers(args, layout, VOCABULARY)[0])

    without = planned_bytes(**SELECTIVE)
    assert planned_bytes() - without == arguments().num_layers * kept > 0


def test_a_mask_of_distances_on_a_gpu_repeats_the_keys_and_values_of_groups() -> None:
    def kept(positions: dict[str, Any], device: str) -> int:
        args = NeoXArgs.from_dict({**LARGE, **positions, "num_kv_heads": 4, "sdpa_backend": "flash"})
        sizes = Sizes.of(args, Layout.of(args), device)
        return saved_bytes(args, Layout.of(args), sizes, stage_layers(args, Layout.of(args), VOCABULARY)[0])

    repeated = (
        kept(ALIBI, "cuda")
        - kept(ALIBI, "cpu")
        - (kept({"pos_emb": "none"}, "cuda") - kept({"pos_emb": "none"}, "cpu"))
    )
    assert repeated == 24 * 2 * 4 * 2048 * 2048 * 2


def test_every_stage_of_zero_divides_more() -> None:
    whole = planned(Layout(data=8))[0]
    parts = [planned(Layout(data=8, zero_stage=stage))[0] for stage in (1, 2, 3)]
    assert parts[0] == whole  # 0 runs as 1
    assert parts[1].gradients < whole.gradients
    assert parts[2].weights < whole.weights
    assert planned(Layout())[0].optimizer == pytest.approx(8 * whole.optimizer, rel=1e-5)


def test_recomputation_and_tensor_parallelism_save_activations() -> None:
    base = Layout(micro_batch=8)
    most = planned(base)[0].activations
    assert planned(replace(base, recompute=True))[0].activations < most / 3
    cut = planned(replace(base, tensor=4))[0].activations
    assert cut < most / 2
    assert planned(replace(base, tensor=4, sequence_parallel=True))[0].activations < cut / 1.5


def test_selective_recomputation_leaves_the_memory_of_flash_attention() -> None:
    layout = Layout(micro_batch=8, recompute=True)
    logits = {"fused_linear_cross_entropy": False}  # whose moment, before the backward pass, is the fullest then
    selective = {"recompute_granularity": "selective", **logits}
    scores = {"attention_config": [[["global"], "all"]], **logits}
    flash, kept = (
        planned(replace(layout, recompute=False), **logits)[0],
        planned(replace(layout, recompute=False), **scores)[0],
    )
    again, whole = planned(layout, **{**scores, **selective})[0], planned(layout, **scores)[0]
    assert planned(layout, **selective)[0] == flash
    assert again.activations == pytest.approx(
        flash.activations, rel=0.01
    )  # the fullest moment is before the backward pass
    assert whole.activations < again.activations < 0.6 * kept.activations


def test_scores_grow_with_the_square_of_the_sequence_and_flash_has_none() -> None:
    layout = Layout(micro_batch=1)
    scores = {**LARGE, "attention_config": [[["global"], "all"]]}
    growth = {}
    for name, settings in (("flash", LARGE), ("global", scores)):
        short, long = (
            peak_memory(
                NeoXArgs.from_dict({**settings, "seq_length": length, "max_position_embeddings": length}),
                layout,
                vocab_size=1024,
            ).activations
            for length in (4096, 8192)
        )
        growth[name] = long / short
    assert growth["flash"] == pytest.approx(2, rel=0.05)
    assert growth["global"] > 3


def test_earlier_stages_keep_more_micro_batches() -> None:
    stages = planned(Layout(pipeline=4, accumulation=8, micro_batch=2))
    kept = [stage.activations for stage in stages]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == pytest.approx(4 * kept[3], rel=0.25)
    assert [stage.logits > 0 for stage in stages] == [False, False, False, True]
    one = planned(Layout(pipeline=4, accumulation=1, micro_batch=2))
    assert one[0].activations < kept[0] / 3


def test_the_fullest_stage_is_the_peak() -> None:
    args = NeoXArgs.from_dict(LARGE)
    layout = Layout(pipeline=4, accumulation=8, micro_batch=2)
    stages = memory_by_stage(args, layout, vocab_size=50257)
    assert peak_memory(args, layout, vocab_size=50257).total == max(stage.total for stage in stages)


@pytest.mark.parametrize(
    ("settings", "bytes_a_value"),
    [({}, 12), ({"use_bnb_optimizer": True}, 4 + 2 * (1 + 4 / 256)), ({"optimizer": {"type": "Lion"}}, 8)],
)
def test_optimizers_hold_as_many_states_as_they_have(settings: dict[str, Any], bytes_a_value: float) -> None:
    args = unbuilt(precision="bfloat16", **settings)
    memory = peak_memory(args, Layout(), vocab_size=512)
    assert memory.optimizer == pytest.approx(bytes_a_value * count_parameters(args, vocab_size=512), rel=1e-4)


def test_a_reference_model_is_a_second_set_of_weights_and_a_frozen_model_has_no_states() -> None:
    plain = peak_memory(unbuilt(precision="bfloat16"), Layout(), vocab_size=512)
    compared = peak_memory(unbuilt(precision="bfloat16", train_impl="kto"), Layout(), vocab_size=512)
    assert compared.weights == 2 * plain.weights
    assert compared.total - plain.total == plain.weights
    free = unbuilt(precision="bfloat16", train_impl="dpo", dpo_reference_free=True)
    assert peak_memory(free, Layout(), vocab_size=512).weights == plain.weights
    frozen = peak_memory(
        unbuilt(precision="bfloat16", soft_prompt_tuning={"enabled": True, "num_tokens": 8}), Layout(), vocab_size=512
    )
    assert frozen.weights == pytest.approx(plain.weights, rel=1e-3)
    assert frozen.optimizer == 12 * 8 * 768


def test_pairs_are_two_sequences_and_rewards_need_no_logits() -> None:
    layout = Layout(micro_batch=4)
    logits = unbuilt(precision="bfloat16", fused_linear_cross_entropy=False)
    plain = peak_memory(logits, replace(layout, micro_batch=8), vocab_size=50257)
    pairs = peak_memory(unbuilt(precision="bfloat16", train_impl="dpo"), layout, vocab_size=50257)
    rewards = peak_memory(
        unbuilt(precision="bfloat16", train_impl="rm", no_weight_tying=True), layout, vocab_size=50257
    )
    assert (pairs.activations, pairs.logits) == (plain.activations, plain.logits)
    assert rewards.logits < pairs.logits / 100


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "gmlp", "amlp"])
def test_blocks_that_are_not_built_yet_are_planned_for(kind: str) -> None:
    args = unbuilt(attention_config=[[[kind], "all"]], pos_emb="none", precision="bfloat16")
    short, long = (peak_memory(args, Layout(micro_batch=size), vocab_size=512) for size in (2, 4))
    assert long.activations > 1.9 * short.activations > 0


def test_the_benchmark_compares_plan_and_measurement_on_a_cpu() -> None:
    """The same path as on a GPU, where it is run at full size."""
    result = run_apart("llama 1B, recomputing", "cpu")
    assert sum(result["parts"].values()) == result["planned"]
    assert abs(result["deviation"]) < 0.03


@pytest.mark.parametrize("layout", [Layout(), Layout(16, 8, 8, True, 1, 1, 64, True, 1), Layout(0, 64, 8, True, 3, 2)])
def test_planning_a_layout_takes_two_milliseconds_at_most(layout: Layout) -> None:
    """The search for layouts asks thousands of times. Stages are cut once for a number of stages; that is not timed."""
    args = NeoXArgs.from_dict({**LARGE, "num_layers": 96, "hidden_size": 12288, "num_attention_heads": 96})
    peak_memory(args, layout, vocab_size=50257)
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        peak_memory(args, layout, vocab_size=50257)
        best = min(best, time.perf_counter() - begin)
    assert best < 0.002
