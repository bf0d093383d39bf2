"""Tiny models of published families: our settings, Hugging Face's, and weights that both get by a formula instead of a file.

Weights have the names and shapes of Hugging Face's Llama-like classes; `load` puts them where ours belong.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.neox_arguments import NeoXArgs
from tests.unit.model.builders import FP64, parameters_by_name

VOCABULARY, HIDDEN, HEADS, KV_HEADS, WIDTH, LAYERS = 11, 16, 4, 2, 24, 2
TOKENS = torch.arange(20).square()[None] % VOCABULARY  # [1, 20]

LLAMA: Mapping[str, Any] = {
    "num_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_kv_heads": KV_HEADS,
    "intermediate_size": 3 * WIDTH,
    "seq_length": 32,
    "activation": "swiglu",
    "norm": "rmsnorm",
    "rms_norm_epsilon": 1e-6,
    "pos_emb": "rotary",
    "rotary_emb_base": 10000,
    "no_weight_tying": True,
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
    "train_iters": 1,
    "train_micro_batch_size_per_gpu": 1,
}
LLAMA3 = {"factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}
YARN = {"factor": 4, "original_max_position_embeddings": 32}
HUGGING_FACE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": WIDTH,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
BLOCK_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Family:
    """A family by its class in Hugging Face (`Llama` of `LlamaConfig`), what our and their settings add to those above, the norms of
    its blocks, the widths of its norms of queries and keys, whether queries, keys and values have biases, and, recorded, the logits of
    the last of TOKENS that their model gives."""

    name: str
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]
    recorded: str
    block_norms: tuple[str, ...] = BLOCK_NORMS
    head_norms: tuple[int, ...] = ()
    has_biases: bool = False

    def args(self, **changes: Any) -> NeoXArgs:
        """Our arguments of the tiny model."""
        return NeoXArgs.from_dict({**LLAMA, **self.ours, **changes})

    def weights(self) -> dict[str, Tensor]:
        """All weights under Hugging Face's names, fp64."""
        head_dim = self.args().head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
            "model.norm.weight": (HIDDEN,),
            "lm_head.weight": (VOCABULARY, HIDDEN),
        }
        for layer in range(LAYERS):
            prefix = f"model.layers.{layer}."
            for part, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                shapes[f"{prefix}self_attn.{part}_proj.weight"] = (heads * head_dim, HIDDEN)
                if self.has_biases:
                    shapes[f"{prefix}self_attn.{part}_proj.bias"] = (heads * head_dim,)
            shapes[f"{prefix}self_attn.o_proj.weight"] = (HIDDEN, HEADS * head_dim)
            shapes[f"{prefix}mlp.up_proj.weight"] = shapes[f"{prefix}mlp.gate_proj.weight"] = (WIDTH, HIDDEN)
            shapes[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, WIDTH)
            shapes |= {f"{prefix}{norm}.weight": (HIDDEN,) for norm in self.block_norms}
            for part, width in zip("qk", self.head_norms, strict=False):
                shapes[f"{prefix}self_attn.{part}_norm.weight"] = (width,)
        return {name: fill(name, shape) for name, shape in shapes.items()}

    @property
    def logits(self) -> Tensor:
        """What their model gives, fp64 [VOCABULARY]."""
        return torch.tensor([float(number) for number in self.recorded.split()], dtype=torch.float64)

    def model(self, **changes: Any) -> SequentialModel:
        """Our model with these weights, fp64."""
        specs = build_layer_specs(self.args(**changes), vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY)
        model = SequentialModel(specs, FP64, seed=None)
        load(model, self.weights())
        return model


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers without a pattern that any machine computes alike: sines of growing steps, around 1 for norms and 0 for all else."""
    numbers = torch.arange(math.prod(shape), dtype=torch.float64)
    waves = torch.sin(0.7 * numbers.square() + zlib.crc32(name.encode()) % 1000).reshape(shape)
    return 1 + 0.5 * waves if "norm" in name else 0.6 * waves


def load(model: SequentialModel, weights: Mapping[str, Tensor]) -> None:
    """Put Hugging Face's weights into our model; every one has a place, and every parameter of ours gets one."""
    rest = dict(weights)
    found = {
        "0.word_embeddings.weight": rest.pop("model.embed_tokens.weight"),
        f"{LAYERS + 3}.norm.scale": rest.pop("model.norm.weight"),
        f"{LAYERS + 4}.final_linear.weight": rest.pop("lm_head.weight"),
    }
    for layer in range(LAYERS):
        theirs, ours = f"model.layers.{layer}.", f"{2 + layer}."
        for kind in ("weight", "bias"):
            parts = [rest.pop(f"{theirs}self_attn.{part}_proj.{kind}", None) for part in "qkv"]
            if parts[0] is not None:
                found[f"{ours}attention.query_key_value.{kind}"] = torch.cat(parts)
        up, gate = (rest.pop(f"{theirs}mlp.{part}_proj.weight") for part in ("up", "gate"))
        found[f"{ours}attention.dense.weight"] = rest.pop(f"{theirs}self_attn.o_proj.weight")
        found[f"{ours}mlp.linear1.weight"] = torch.cat((up, gate))
        found[f"{ours}mlp.linear2.weight"] = rest.pop(f"{theirs}mlp.down_proj.weight")
        for name in [name for name in rest if name.startswith(theirs) and "norm" in name]:
            place = name.removeprefix(theirs).replace("self_attn.q_norm", "attention.query_layernorm")
            place = place.replace("self_attn.k_norm", "attention.key_layernorm").replace(".weight", ".scale")
            found[ours + place] = rest.pop(name)
    parameters = parameters_by_name(model)
    assert not rest
    assert set(found) == set(parameters)
    with torch.no_grad():
        for name, value in found.items():
            assert parameters[name].shape == value.shape, name
            parameters[name].copy_(value)


FAMILIES = (
    Family(
        "Llama",
        {},
        {},
        "-0.122736 -0.019871 -0.927746 -2.306101 -0.458490 0.590528 0.308930 -1.027058 -0.540680 0.979468 1.686477",
    ),
    Family(
        "Llama",
        {"rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3}},
        "-0.220120 -0.141204 -1.016934 -2.277645 -0.542477 0.540132 0.232496 -1.093375 -0.437731 1.008596 1.660119",
    ),
    Family(
        "Llama",
        {"rope_scaling": {"type": "yarn", **YARN}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, **YARN}},
        "-0.432723 -0.333615 -1.134547 -2.259216 -0.793496 0.339980 0.057402 -1.338340 -0.293167 1.052571 1.559130",
    ),
    Family(
        "Mistral",
        {"sliding_window_width": 7},
        {"sliding_window": 7},
        "0.254034 0.140427 -0.711872 -2.071356 -0.047196 0.770523 0.551437 -0.644411 -0.603999 1.130047 1.833559",
    ),
    Family(
        "Qwen2",
        {"use_bias_in_attn_linear": True, "use_bias_in_attn_output": False},
        {},
        "0.631962 0.678447 -0.340517 -2.035413 -0.321309 0.742704 0.476629 0.087254 -1.192494 0.616284 1.673862",
        has_biases=True,
    ),
    Family(
        "Qwen3",
        {"head_dim": 6, "use_qk_layernorm": True},
        {"head_dim": 6},
        "-0.148519 -3.228554 2.039717 -2.887855 -0.740691 -0.841380 -2.180850 -2.621383 1.660996 0.893221 -2.342383",
        head_norms=(6, 6),
    ),
    Family(
        "Olmo2",
        {"use_qk_layernorm": True, "qk_layernorm_scope": "all_heads", "norm_position": "post"},
        {},
        "1.188683 -0.605593 -0.033838 -1.800557 -1.210607 -0.781343 -1.435356 0.305837 -0.472535 0.995296 1.628689",
        block_norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        head_norms=(HIDDEN, HIDDEN // 2),
    ),
)
