"""A shrunk configuration resolves, keeps every feature and the kind of its layout, says what it changed, and is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.sequence_schedule import sequence_schedule
from megatron.neox_arguments.shrinking.features import features
from megatron.neox_arguments.shrinking.shrink import ORIGIN, shrink
from megatron.planning.model.parameters import count_parameters
from tests.shipped import FILES, arguments, read_shipped
from tests.unit.neox_arguments.minimal import MINIMAL
from tests.unit.neox_arguments.published import complete_published

VOCABULARY = 512
"""Entries of the character-level tokenizer."""
LARGE: dict[str, Any] = {
    "num_layers": 24,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "seq_length": 4096,
    "train_micro_batch_size_per_gpu": 8,
    "train_iters": 1000,
}
CURRICULUM: dict[str, Any] = {
    "curriculum_learning": {
        "enabled": True,
        "min_difficulty": 64,
        "max_difficulty": 4096,
        "schedule_config": {"total_curriculum_step": 500, "difficulty_step": 8},
    }
}


def shrunk(**keys: Any) -> NeoXArgs:
    """The arguments of a large model with some keys changed, after shrinking."""
    return arguments(shrink(ConfigValues.from_dict({**LARGE, **keys})))


def assert_is_a_small_copy(values: ConfigValues, *, parameters: int = 150_000) -> None:
    """Everything that holds for every configuration and as many processes as two of each size take."""
    before = arguments(values)
    needed = min(before.pipeline_stages, 2) * min(before.model_parallel_size, 2) * min(before.context_parallel_size, 2)
    limit = max(needed, 4)
    small = shrink(values, world_size_limit=limit)
    after = arguments(small)
    assert features(after) == features(before)
    assert count_parameters(after, vocab_size=VOCABULARY) < parameters
    assert after.global_num_gpus == after.num_gpus <= limit
    assert after.model_parallel_size == min(before.model_parallel_size, 2)
    assert after.context_parallel_size == min(before.context_parallel_size, 2)
    assert after.pipe_parallel_size == min(before.pipe_parallel_size, 2)
    assert set(after.attention_config) == set(before.attention_config)
    assert after.train_iters == 4
    assert 1 <= after.warmup_steps < after.lr_decay_steps or after.warmup in (0, 1)
    written = modernise(values)[0].values
    changed = {key for key, value in small.values.items() if value != written.get(key)}
    assert changed == {path[0] for path, origin in small.origins.items() if origin == ORIGIN}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Any architecture, layout and schedule, most of them legal."""
    pipe = draw(st.integers(0, 6))
    tensor = draw(st.sampled_from([1, 2, 3, 4, 8]))
    context = draw(st.sampled_from([1, 1, 2, 3, 8]))
    kv_heads = tensor * draw(st.integers(1, 4))
    heads = kv_heads * context * draw(st.integers(1, 6))
    head_dim = draw(st.integers(1, 32)) * 8
    types = ["global", "flash", "mamba", "gmlp", "rwkv", "local"]
    config: dict[str, Any] = {
        "num_layers": draw(st.integers(max(pipe, 1), 50)),
        "num_attention_heads": heads,
        "hidden_size": heads * head_dim,
        "seq_length": tensor * context * draw(st.integers(1, 4000)),
        "pos_emb": draw(st.sampled_from(["rotary", "learned", "alibi", "none"])),
        "rotary_pct": draw(st.sampled_from([0.25, 0.4, 0.5, 1.0])),
        "model_parallel_size": tensor,
        "context_parallel_size": context,
        "pipe_parallel_size": pipe,
        "sequence_parallel": draw(st.booleans()),
        "activation": draw(st.sampled_from(["gelu", "swiglu"])),
        "mlp_multiple_of": draw(st.sampled_from([1, 24, 48, 240])),
        "train_micro_batch_size_per_gpu": draw(st.integers(1, 16)),
        "gradient_accumulation_steps": draw(st.integers(1, 16)),
        "train_iters": draw(st.integers(1, 10**6)),
        "warmup": draw(st.sampled_from([0, 0.01, 0.5])),
        "precision": draw(st.sampled_from(["fp32", "fp16", "bfloat16"])),
        "zero_optimization": {"stage": draw(st.integers(0, 1 if pipe > 1 else 3)), "reduce_bucket_size": 500_000_000},
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "num_kv_heads": st.just(kv_heads),
        "head_dim": st.integers(1, 64).map(lambda half: 2 * half),
        "attention_config": st.lists(st.sampled_from(types), min_size=1, max_size=4).map(
            lambda names: [[names, "all"]]
        ),
        "intermediate_size": st.integers(1, 1000).map(lambda count: 48 * count),
        "expansion_factor": st.sampled_from([2.0, 2.66, 4.0]),
        "max_position_embeddings": st.integers(1, 8).map(lambda times: times * config["seq_length"]),
        "sliding_window_width": st.integers(1, 10_000),
        "lr_decay_iters": st.integers(1, 10**6),
        "lr_decay_fraction": st.sampled_from([0.01, 0.9]),
        "global_num_gpus": st.integers(1, 8).map(lambda copies: copies * tensor * context * max(pipe, 1)),
        "checkpoint_num_layers": st.integers(1, 60),
        "checkpoint_activations": st.booleans(),
        "moe_num_experts": st.sampled_from([2, 8, 64]),
        "moe_top_k": st.integers(1, 2),
        "moe_expert_interval": st.integers(1, 3),
        "num_unique_layers": st.integers(1, 50),
        "no_weight_tying": st.booleans(),
        "gmlp_attn_dim": st.just(32),
        "padded_vocab_size": st.just(50304),
        "num_gpus": st.just(8),
        "use_qk_layernorm": st.booleans(),
        "norm_position": st.sampled_from(["pre", "post"]),
        "use_bias_in_attn_output": st.booleans(),
        "flops_profiler": st.just({"enabled": True, "profile_step": 5}),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional)), max_size=8))
    return {**config, **{key: draw(optional[key]) for key in sorted(chosen)}}


@settings(max_examples=150, deadline=None)
@given(configurations())
def test_any_legal_configuration_gives_a_small_copy(config: dict[str, Any]) -> None:
    values = ConfigValues.from_dict(config)
    try:
        arguments(values)
    except ConfigError:
        assume(False)
    assert_is_a_small_copy(values, parameters=2_000_000)  # most with four wide blocks of four experts


@settings(max_examples=100, deadline=None)
@given(configurations(), st.integers(1, 3))
def test_a_shrunk_configuration_keeps_to_the_number_of_processes(config: dict[str, Any], limit: int) -> None:
    values = ConfigValues.from_dict(config)
    try:
        arguments(values)
    except ConfigError:
        assume(False)
    assert arguments(shrink(values, world_size_limit=limit)).global_num_gpus <= limit


def test_every_published_configuration_gives_a_small_copy(reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    for name in zoo:
        assert_is_a_small_copy(ConfigValues.from_dict(complete_published(name, zoo)))


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_configuration_gives_a_small_copy(name: str) -> None:
    assert_is_a_small_copy(read_shipped(name))


def test_a_config_that_names_no_processes_gets_two_copies_of_the_model() -> None:
    assert shrunk().data_parallel_size == 2
    assert shrunk(model_parallel_size=8).data_parallel_size == 2
    assert shrunk(model_parallel_size=8, pipe_parallel_size=4).data_parallel_size == 1


def test_a_config_for_one_process_stays_so() -> None:
    assert shrunk(global_num_gpus=1).global_num_gpus == 1
    assert shrunk(train_batch_size=32, gradient_accumulation_steps=4).global_num_gpus == 1
    assert shrunk(train_batch_size=64, gradient_accumulation_steps=4).global_num_gpus == 2


@pytest.mark.parametrize(
    ("limit", "layout"),
    [(16, (2, 2, 2, 2)), (8, (2, 1, 2, 2)), (4, (1, 1, 2, 2)), (3, (1, 1, 1, 2)), (1, (1, 1, 1, 1))],
)
def test_copies_go_first_then_the_pipeline_then_context_ranks_then_tensor_ranks(
    limit: int, layout: tuple[int, ...]
) -> None:
    config = {**LARGE, "pipe_parallel_size": 4, "model_parallel_size": 4, "context_parallel_size": 4}
    small = arguments(shrink(ConfigValues.from_dict(config), world_size_limit=limit))
    data = small.data_parallel_size
    assert (small.pipe_parallel_size, data, small.context_parallel_size, small.model_parallel_size) == layout


def test_what_is_compared_with_the_sequence_stays_on_its_side_of_it() -> None:
    window = shrunk(sliding_window_width=1024)
    assert (window.seq_length, window.sliding_window_width) == (32, 8)
    assert shrunk(sliding_window_width=4096).sliding_window_width == 32
    scaling = {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    longer = shrunk(
        pos_emb="rotary",
        max_position_embeddings=131072,
        rope_scaling={**scaling, "original_max_position_embeddings": 1024},
    )
    assert longer.rope_scaling == {**scaling, "original_max_position_embeddings": 8}
    assert longer.max_position_embeddings == 1024


@pytest.mark.parametrize(("share", "head_dim"), [(0.25, 8), (0.4, 10), (1.0, 8)])
def test_an_even_number_of_channels_is_rotated(share: float, head_dim: int) -> None:
    small = shrunk(pos_emb="rotary", rotary_pct=share, hidden_size=1280)
    assert (small.head_dim, small.hidden_size) == (head_dim, 4 * head_dim)


def test_batches_and_sequences_still_grow() -> None:
    ramp = {"rampup_batch_size": [16, 16, 10_000], "gradient_accumulation_steps": 8, "global_num_gpus": 2}
    small = shrunk(**ramp, **CURRICULUM, model_parallel_size=2, sequence_parallel=True)
    batches, lengths = batch_schedule(small), sequence_schedule(small)
    assert [batches.batch_of(step) for step in range(4)] == [2, 2, 4, 4]
    assert [lengths.length_of(step) for step in range(4)] == [16, 32, 32, 32]
    discrete = {
        "schedule_type": "fixed_discrete",
        "schedule_config": {"difficulty": [8, 16, 4096], "max_step": [9, 99]},
    }
    steps = shrunk(curriculum_learning={**CURRICULUM["curriculum_learning"], **discrete})
    assert [sequence_schedule(steps).length_of(step) for step in range(3)] == [16, 32, 32]


def test_the_decay_ends_before_with_or_after_the_run_as_it_did() -> None:
    assert shrunk(lr_decay_iters=900).lr_decay_steps == 3
    assert shrunk(lr_decay_fraction=0.5).lr_decay_steps == 3
    assert shrunk(lr_decay_iters=1000).lr_decay_steps == 4
    assert shrunk(lr_decay_iters=2000).lr_decay_steps == 8
    assert shrunk(train_iters=None, train_epochs=2).train_iters == 4


def test_weights_are_still_divided_at_zero_3() -> None:
    section = shrunk(zero_optimization={"stage": 3, "stage3_max_live_parameters": 10**9}).zero_optimization
    assert section["stage3_param_persistence_threshold"] < 8 * 32
    assert section["stage3_max_live_parameters"] == 10**9


def test_buckets_shrink_but_never_grow() -> None:
    assert shrunk(zero_optimization={"stage": 1, "reduce_bucket_size": 5e8}).zero_reduce_bucket_size == 1_000_000
    assert shrunk(zero_optimization={"stage": 1, "reduce_bucket_size": 5e4}).zero_reduce_bucket_size == 50_000
    assert shrunk(zero_reduce_bucket_size=500_000_000).zero_reduce_bucket_size == 1_000_000


def test_changes_are_overrides_from_shrink() -> None:
    small = shrink(ConfigValues.from_dict({**MINIMAL, "hidden_size": 4096, "hostfile": "/mock_path"}))
    told = {str(override) for override in small.overrides}
    assert '"hidden_size": 4096 (None) -> 32 (shrink)' in told
    assert '"hostfile": "/mock_path" (None) -> null (shrink)' in told
    assert small.origin("global_num_gpus") == ORIGIN


def test_an_impossible_configuration_is_refused_as_it_is() -> None:
    with pytest.raises(ConfigError, match="hidden_size"):
        shrink(ConfigValues.from_dict({**LARGE, "hidden_size": 2047}))


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"norm": "rmsnorm"}, "norm: rmsnorm"),
        ({"gpt_j_residual": True}, "gpt_j_residual: True"),
        ({"num_kv_heads": 4}, "grouped-query attention"),
        ({"num_kv_heads": 1}, "multi-query attention"),
        ({"head_dim": 64}, "head_dim other than hidden_size / num_attention_heads"),
        ({"attention_config": [[["flash", "global"], "all"]]}, "attention flash"),
        ({"zero_optimization": {"stage": 2}}, "ZeRO stage 2"),
        ({"optimizer": {"type": "Lion"}}, "optimizer_type: lion"),
        ({"pos_emb": "rotary", "rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling: linear"),
        ({"gradient_accumulation_steps": 2}, "gradient accumulation"),
        (CURRICULUM, "curriculum_learning"),
        ({"rampup_batch_size": [8, 8, 100]}, "batch ramp-up"),
    ],
)
def test_a_feature_has_a_name(keys: dict[str, Any], name: str) -> None:
    assert name not in features(arguments(ConfigValues.from_dict(LARGE)))
    assert name in features(arguments(ConfigValues.from_dict({**LARGE, **keys})))


def test_sizes_are_no_features() -> None:
    sizes = {"num_layers": 30, "hidden_size": 1024, "seq_length": 128, "train_iters": 3, "data_path": "somewhere"}
    assert features(arguments(ConfigValues.from_dict({**LARGE, **sizes}))) == features(
        arguments(ConfigValues.from_dict(LARGE))
    )
