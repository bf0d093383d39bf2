"""FLOPs agree with numbers counted by hand and with the 6 N rule."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.monitor.flops import forward_flops_per_token_of_block, hardware_flops_per_token, model_flops_per_token
from megatron.neox_arguments import NeoXArgs


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
        }
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


def test_a_large_model_needs_about_six_operations_a_parameter() -> None:
    args = arguments(
        num_layers=44, hidden_size=6144, num_attention_heads=64, seq_length=2048, max_position_embeddings=2048
    )
    parameters = 12 * 44 * 6144**2 + 50432 * 6144
    attention = 12 * 44 * 6144 * 2048
    assert model_flops_per_token(args, vocab_size=50432) == pytest.approx(6 * parameters + attention)
