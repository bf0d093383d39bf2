"""Planned parameters are those of the real modules: names, order, full shapes, how they are cut, and what each rank holds."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import pytest

from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import build_layer
from megatron.model.spec import BuildContext
from megatron.mpu.groups import Group
from megatron.mpu.shard import shard_of
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import counted_tensors, stage_layers, stage_tensors
from megatron.planning.model.parameters import count_parameters, layer_shapes
from tests.shipped import MODELS, arguments, header_of, read_alone
from tests.unit.model.builders import VARIANTS, build_args
from tests.unit.planning.builders import unbuilt

# What the table of small variants lacks, and sizes as they are published; none of it takes memory on the meta device.
MORE: Mapping[str, Mapping[str, Any]] = {
    "queries and keys normalised by head": {"use_qk_layernorm": True, "num_kv_heads": 2},
    "queries and keys normalised over all heads": {
        "use_qk_layernorm": True,
        "qk_layernorm_scope": "all_heads",
        "norm": "rmsnorm",
        "norm_position": "post",
        "num_kv_heads": 2,
    },
    "rewards": {"train_impl": "rm", "no_weight_tying": True},
    "post norms": {"norm_position": "post", "use_bias_in_norms": False},
    "wide heads": {"head_dim": 16, "num_kv_heads": 2},
    "bias in queries, keys and values alone": {"use_bias_in_attn_output": False},
    "window": {"sliding_window_width": 8, "attention_config": [[["flash"], "all"]]},
    "pythia 12B": {
        "num_layers": 36,
        "hidden_size": 5120,
        "num_attention_heads": 40,
        "pos_emb": "rotary",
        "no_weight_tying": True,
        "gpt_j_residual": True,
    },
    "llama 2 70B": {
        "num_layers": 80,
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "num_kv_heads": 8,
        "activation": "swiglu",
        "intermediate_size": 28672 * 3,
        "mlp_multiple_of": 256,
        "norm": "rmsnorm",
        "pos_emb": "rotary",
        "no_weight_tying": True,
        "use_bias_in_attn_linear": False,
        "use_bias_in_mlp": False,
    },
}
ALL = {**VARIANTS, **MORE}
ROWS = 64


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_that_of_the_module(name: str, ranks: int) -> None:
    assert_same_parameters(build_args(**ALL[name]), ranks=ranks)


@pytest.mark.parametrize("name", [file for file in MODELS if not header_of(file).not_built])
def test_every_parameter_of_a_shipped_model_is_that_of_the_module(name: str) -> None:
    """In full size, on the meta device; of its blocks, which are alike, the first two and the last."""
    args = arguments(read_alone(name))
    blocks = {2, 3, args.num_layers + 1}
    between = set(range(2, args.num_layers + 2)) - blocks
    assert_same_parameters(args, ranks=args.model_parallel_size, rows=256 * args.model_parallel_size, without=between)


def assert_same_parameters(
    args: NeoXArgs, *, ranks: int, rows: int = ROWS, without: Container[int] = frozenset()
) -> None:
    """The planned layers are those that are built; without: layers whose parameters are not looked at."""
    context = BuildContext(Group(0, ranks, tuple(range(ranks))), device="meta")
    specs = build_layer_specs(args, vocab_size=59, padded_vocab_size=rows)
    layers = layer_shapes(args, vocab_size=rows)
    assert [(layer.number, layer.name, layer.tied_to) for layer in layers] == [
        (spec.number, spec.name, spec.tied_to) for spec in specs
    ]
    for spec, layer in zip(specs, layers, strict=True):
        if spec.number in without:
            continue
        built = [
            (key, shard_of(parameter).full_shape, shard_of(parameter).dim, parameter.numel())
            for key, parameter in build_layer(spec, context).named_parameters()
        ]
        planned = [
            (tensor.name, tensor.shape, tensor.sharded_dim, tensor.local_elements(ranks)) for tensor in layer.tensors
        ]
        assert planned == built, spec.number


def test_tied_parameters_count_once_in_a_model_and_once_on_each_stage() -> None:
    tied, untied = build_args(), build_args(no_weight_tying=True)
    embedding = ROWS * tied.hidden_size
    assert count_parameters(untied, vocab_size=ROWS) - count_parameters(tied, vocab_size=ROWS) == embedding
    whole, first, last = (
        sum(tensor.elements for tensor in stage_tensors(layers))
        for stages in (0, 2)
        for layers in stage_layers(tied, Layout(pipeline=stages), ROWS)
    )
    assert first + last - whole == embedding


@pytest.mark.parametrize("name", ["gpt2", "llama", "pythia 12B"])
def test_equal_blocks_are_counted_together(name: str) -> None:
    for layers in stage_layers(build_args(**ALL[name]), Layout(pipeline=2), ROWS):
        counted = sum(tensor.elements * count for tensor, count in counted_tensors(layers))
        assert counted == sum(tensor.elements for tensor in stage_tensors(layers))


@pytest.mark.parametrize(
    ("settings", "rows", "published"),
    [
        # mamba-130m of state-spaces: 129,135,360 parameters
        (
            {"attention_config": [[["mamba"], "all"]], "num_layers": 24, "norm": "rmsnorm", "pos_emb": "none"},
            50280,
            129.1,
        ),
        # mamba-1.4b: 1,372,178,432
        (
            {
                "attention_config": [[["mamba"], "all"]],
                "num_layers": 48,
                "hidden_size": 2048,
                "num_attention_heads": 16,
                "norm": "rmsnorm",
                "pos_emb": "none",
            },
            50280,
            1372.2,
        ),
        # GPT-NeoX names its RWKV configuration of these sizes 170M
        (
            {"attention_config": [[["rwkv"], "all"]], "norm": "rmsnorm", "pos_emb": "none", "no_weight_tying": True},
            50304,
            173.6,
        ),
    ],
)
def test_recurrent_models_have_their_published_sizes(settings: dict[str, Any], rows: int, published: float) -> None:
    assert count_parameters(unbuilt(**settings), vocab_size=rows) / 1e6 == pytest.approx(published, abs=0.05)


def test_experts_stand_in_for_every_nth_mlp() -> None:
    dense = unbuilt(no_weight_tying=True)
    sparse = unbuilt(no_weight_tying=True, moe_num_experts=8, moe_expert_interval=2)
    matrices, biases = 2 * 768 * 3072, 3072 + 768
    mixture = 8 * matrices + 8 * 768
    difference = count_parameters(sparse, vocab_size=512) - count_parameters(dense, vocab_size=512)
    assert difference == 6 * (mixture - matrices - biases)


def test_a_gated_expert_has_a_third_matrix() -> None:
    plain, gated = (
        unbuilt(moe_num_experts=4, intermediate_size=1024, activation=activation) for activation in ("gelu", "swiglu")
    )
    third = 12 * 4 * 768 * 1024
    assert count_parameters(gated, vocab_size=512) - count_parameters(plain, vocab_size=512) == third


def test_gmlp_gates_by_a_matrix_over_the_sequence_and_amlp_attends_beside_it() -> None:
    gmlp, amlp = (
        unbuilt(attention_config=[[[kind], "all"]], pos_emb="none", num_layers=1) for kind in ("gmlp", "amlp")
    )
    hidden, width, sequence, channels = 768, 3072, 512, 64
    norms = 2 * hidden + 2 * width
    widen, gate, narrow = 2 * width * (hidden + 1), sequence * (sequence + 1), hidden * (width + 1)
    ends = 512 * hidden + 2 * hidden
    assert count_parameters(gmlp, vocab_size=512) == norms + widen + gate + narrow + ends
    attention = 3 * channels * (2 * width + 1) + width * (channels + 1)
    assert count_parameters(amlp, vocab_size=512) - count_parameters(gmlp, vocab_size=512) == attention


def test_tuning_a_soft_prompt_trains_nothing_else() -> None:
    args = unbuilt(soft_prompt_tuning={"enabled": True, "num_tokens": 20})
    tensors = [tensor for layer in layer_shapes(args, vocab_size=512) for tensor in layer.tensors]
    assert [tensor.shape for tensor in tensors if tensor.is_trained] == [(20, 768)]
    assert count_parameters(args, vocab_size=512) == count_parameters(unbuilt(), vocab_size=512) + 20 * 768


def test_sharded_parameters_divide_exactly() -> None:
    for name in ("pythia 12B", "llama 2 70B"):
        for layer in layer_shapes(build_args(**ALL[name]), vocab_size=50432):
            for tensor in layer.tensors:
                whole = math.prod(tensor.shape)
                assert tensor.local_elements(8) == (whole if tensor.sharded_dim is None else whole // 8)
