"""FLOPs agree with numbers counted by hand, with the parameters of known models and with the 6 N rule."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.planning.model.flops import (
    MIXERS,
    flops_remarks,
    forward_flops_per_token_of_block,
    forward_flops_per_token_of_blocks,
    hardware_flops_per_token,
    model_flops_per_token,
)
from megatron.planning.model.parameters import layer_shapes
from megatron.planning.model.vocabulary import ASSUMED
from tests.unit.planning.builders import shipped


def arguments(**changes: Any) -> NeoXArgs:
    return NeoXArgs.from_dict(
        {
            "num_layers": 2,
            "hidden_size": 8,
            "num_attention_heads": 2,
            "seq_length": 16,
            "max_position_embeddings": 16,
            "train_micro_batch_size_per_gpu": 1,
            "train_iters": 1,
            **changes,
        },
        planning=True,
    )


def test_a_block_counts_its_matrices_and_the_scores() -> None:
    # projections 2*8*24 + 2*8*8, scores and values 2*2*16*8, MLP 2*(8*32 + 32*8)
    assert forward_flops_per_token_of_block(arguments()) == 384 + 128 + 512 + 1024


def test_grouped_keys_and_gated_mlps_are_counted_as_they_are() -> None:
    # projections 2*8*(8 + 2*4) + 2*8*8, the same scores, three MLP matrices of width w
    args = arguments(num_kv_heads=1, activation="swiglu", intermediate_size=48)
    assert forward_flops_per_token_of_block(args) == 256 + 128 + 512 + 3 * 2 * 8 * args.mlp_width


def test_training_is_three_forward_passes_and_recomputation_adds_one() -> None:
    forward = 2 * (384 + 128 + 512 + 1024) + 2 * 8 * 100
    assert model_flops_per_token(arguments(), vocab_size=100) == 3 * forward
    recomputing = arguments(checkpoint_activations=True)
    assert model_flops_per_token(recomputing, vocab_size=100) == 3 * forward
    assert hardware_flops_per_token(recomputing, vocab_size=100) == 3 * forward + 2 * (384 + 128 + 512 + 1024)
    assert hardware_flops_per_token(arguments(), vocab_size=100) == 3 * forward


def test_selective_recomputation_repeats_the_scores_that_are_in_memory() -> None:
    """The second product of attention, of the weights with the values, keeps what went into it and need not run again."""
    selective = {"checkpoint_activations": True, "recompute_granularity": "selective"}
    plain, layer = model_flops_per_token(arguments(), vocab_size=100), 512 // 2
    assert hardware_flops_per_token(arguments(**selective), vocab_size=100) == plain + 2 * layer
    one_of_two = arguments(**selective, attention_config=[[["flash", "global"], 1]])
    assert hardware_flops_per_token(one_of_two, vocab_size=100) == plain + layer
    dropping = arguments(**selective, attention_config=[[["flash"], 2]], attention_dropout=0.1)
    assert hardware_flops_per_token(dropping, vocab_size=100) == plain + 2 * layer


def test_a_large_model_needs_about_six_operations_a_parameter() -> None:
    args = arguments(
        num_layers=44, hidden_size=6144, num_attention_heads=64, seq_length=2048, max_position_embeddings=2048
    )
    parameters = 12 * 44 * 6144**2 + 50432 * 6144
    attention = 12 * 44 * 6144 * 2048
    assert model_flops_per_token(args, vocab_size=50432) == pytest.approx(6 * parameters + attention)


def test_a_sliding_window_limits_the_scores() -> None:
    full, windowed = arguments(seq_length=16), arguments(seq_length=16, sliding_window_width=4)
    per_key = 2 * 2 * 8
    assert forward_flops_per_token_of_block(full) - forward_flops_per_token_of_block(windowed) == per_key * (16 - 4)
    assert forward_flops_per_token_of_block(arguments(sliding_window_width=99)) == forward_flops_per_token_of_block(
        full
    )


def test_heads_may_be_wider_than_the_model() -> None:
    # projections 2*8*(3*20) + 2*20*8, scores and values 2*2*16*20, MLP as ever
    assert forward_flops_per_token_of_block(arguments(head_dim=10)) == 960 + 320 + 1280 + 1024


KNOWN = [
    "20B.yml",
    "pythia/1B.yml",
    "pythia/70M.yml",
    "llama/7B.yml",
    "llama2/70B.yml",
    "qwen3/0.6B.yml",
    "olmo2/7B.yml",
]


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_need_six_operations_a_weight_and_those_of_attention(name: str) -> None:
    args = shipped(name)
    vocab_size = 50304
    weights = sum(
        tensor.elements
        for layer in layer_shapes(args, vocab_size=vocab_size)
        for tensor in layer.tensors
        if layer.name != "embedding" and len(tensor.shape) == 2
    )
    attention = 12 * args.num_layers * args.seq_length * args.num_attention_heads * args.head_dim
    assert model_flops_per_token(args, vocab_size=vocab_size) == 6 * weights + attention


def test_gpt_neox_20b_is_six_n_within_the_share_of_attention() -> None:
    args = shipped("20B.yml")
    flops = model_flops_per_token(args, vocab_size=ASSUMED["HFTokenizer"][0])
    assert flops == pytest.approx(6 * 20.55e9, rel=0.05), "the paper's 20.6 billion parameters"


@pytest.mark.parametrize(("activation", "matrices"), [("gelu", 2), ("swiglu", 3)])
def test_experts_are_a_router_and_as_many_mlps_as_a_token_visits(activation: str, matrices: int) -> None:
    keys = {"intermediate_size": 48, "activation": activation}
    without_mlp = 1024  # projections and scores, as above
    block = without_mlp + 2 * 8 * 4 + 2 * (2 * matrices * 8 * 48)
    experts = arguments(moe_num_experts=4, moe_top_k=2, **keys)
    assert forward_flops_per_token_of_block(experts) == block
    every_other = arguments(moe_num_experts=4, moe_top_k=2, moe_expert_interval=2, **keys)
    dense = forward_flops_per_token_of_block(arguments(**keys))
    assert forward_flops_per_token_of_blocks(every_other) == block + dense


def test_experts_use_the_weights_of_those_visited() -> None:
    args = arguments(hidden_size=64, moe_num_experts=4, moe_top_k=4, activation="swiglu", seq_length=1)
    block = layer_shapes(args, vocab_size=128)[1]
    weights = sum(tensor.elements for tensor in block.tensors if len(tensor.shape) == 2)
    scores = 2 * 2 * 64
    assert forward_flops_per_token_of_block(args) == 2 * weights + scores


def test_blocks_of_different_kinds_add_up() -> None:
    args = arguments(attention_config=[[["global", "gmlp"], 1]])
    blocks = [forward_flops_per_token_of_block(args, layer) for layer in range(2)]
    assert blocks[0] != blocks[1]
    assert forward_flops_per_token_of_blocks(args) == sum(blocks)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in ("global", "flash", "gmlp", "amlp")])
def test_other_blocks_use_each_weight_once_a_token(name: str) -> None:
    """Projections are nearly all of every mixer in a short sequence."""
    args = arguments(
        hidden_size=1024, num_attention_heads=16, attention_config=[[[name], "all"]], seq_length=16, norm="rmsnorm"
    )
    block = layer_shapes(args, vocab_size=128)[1]
    weights = sum(tensor.elements for tensor in block.tensors if len(tensor.shape) >= 2)
    assert forward_flops_per_token_of_block(args) == pytest.approx(2 * weights, rel=0.04)


def test_gated_mlps_over_positions_are_counted_with_their_product() -> None:
    # widening 2*8*64, the gate over 16 positions 2*16*32, narrowing 2*32*8
    args = arguments(attention_config=[[["gmlp"], "all"]])
    assert forward_flops_per_token_of_block(args) == 1024 + 1024 + 512


def test_what_is_not_counted_is_said() -> None:
    assert flops_remarks(arguments()) == ()
    (sparse,) = flops_remarks(arguments(attention_config=[[["global", "local"], 1]]))
    assert "upper bound" in sparse
    (mamba,) = flops_remarks(arguments(attention_config=[[["mamba"], "all"]]))
    assert "not counted" in mamba
