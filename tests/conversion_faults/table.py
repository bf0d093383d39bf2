"""All planted mistakes: in which model of MODELS each is made, and the sentence by which it is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.conversion.converting import to_checkpoint_config
from megatron.conversion.mapping import shapes
from megatron.conversion.mapping.packing import fused_heads, separate_heads, separate_interleaved_heads, whole
from tests.conversion_faults.cuts import (
    groups_exchanged,
    one_too_few,
    queries_across_groups,
    separate_values_before_keys,
    shifted,
    up_and_gate,
    values_before_keys,
)
from tests.conversion_faults.in_families import (
    Plant,
    confused,
    exchanged,
    in_module,
    layers_exchanged,
    overlooked,
    plus,
    times,
)
from tests.conversion_faults.in_files import (
    config_with,
    file_with,
    in_checkpoint,
    in_file,
    our_keys_with,
    read,
    read_of_the_run,
    stale_file,
    written,
)

EXPORT, IMPORT = "to Hugging Face", "from Hugging Face"


@dataclass(frozen=True)
class Fault:
    """model: of MODELS; plant: the mistake; exporting, importing: pattern of the sentence by which it is caught in this direction, "" where it
    cannot be made."""

    model: str
    plant: Plant
    exporting: str = ""
    importing: str = ""

    @property
    def ways(self) -> dict[str, str]:
        """The pattern by direction."""
        return {way: said for way, said in ((EXPORT, self.exporting), (IMPORT, self.importing)) if said}


def both(model: str, plant: Plant, said: str) -> Fault:
    """One that is caught alike in both directions."""
    return Fault(model, plant, said, said)


def twice(tensor: Tensor) -> Tensor:
    return 2 * tensor


def to_bfloat16(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().to(tensor.dtype)


def another_head(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1


def without(key: str) -> Callable[[dict[str, object]], dict[str, object]]:
    return lambda keys: {name: value for name, value in keys.items() if name != key}


def unscaled_width(keys: dict[str, object]) -> dict[str, object]:
    return {**keys, "intermediate_size": int(str(keys["intermediate_size"])) // 3}


# What ours calls a module, and theirs.
QKV, DENSE = "block.attention.query_key_value", "gpt_neox.layers.1.attention.dense.bias"
EMBEDDING, HEAD, POSITIONS = "embedding.word_embeddings", "head.final_linear", "embedding.position_embeddings"
FIRST_NORM, SECOND_NORM = "block.input_layernorm", "block.post_attention_layernorm"
GAIN, UP = "model.layers.1.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"

# Where they differ first, and what is said when it does not come to that.
DIFFERS = "computes something else than ours: outputs differ by up to .*; the first layer that differs is "
AT_ONCE = DIFFERS + "the embedding$"
BLOCK_0 = DIFFERS + "block 0$"
BLOCK_1 = DIFFERS + "block 1, or the final norm$"
LAST = DIFFERS + "the output layer$"
LOST = "ForCausalLM cannot express .*"
READ_BACK = "were not written as they should be: .* is read back otherwise"
WRONG_CONFIG = "the export was not written as it should be: it has "

FAULTS: dict[str, Fault] = {
    # Queries, keys and values
    "keys and values exchanged, head by head": both("pythia", in_module(QKV, cut=values_before_keys), BLOCK_0),
    "keys and values exchanged": both("llama-1", in_module(QKV, cut=separate_values_before_keys), BLOCK_0),
    "head by head taken for [Q; K; V]": both("pythia", in_module(QKV, cut=fused_heads), BLOCK_0),
    "[Q; K; V] taken for head by head": both("gpt2", in_module(QKV, cut=whole), BLOCK_0),
    "queries dealt to the groups in turn": both("llama-2-70b", in_module(QKV, cut=queries_across_groups), BLOCK_0),
    "groups with the keys of others": both("falcon-40b", in_module(QKV, cut=groups_exchanged), BLOCK_0),
    "norms of queries and keys exchanged": both(
        "qwen3", exchanged("block.attention.query_layernorm", "block.attention.key_layernorm"), BLOCK_0
    ),
    "a square matrix transposed": both("gpt2", in_module("block.attention.dense", transposed=False), BLOCK_0),
    # Positions
    "twice the rotary_pct": both("pythia", times("rotary_pct", 2), BLOCK_0),
    "no rotary_pct written": Fault(
        "redpajama", config_with(rotary_pct=...), WRONG_CONFIG + "rotary_pct 0.25 where 1.0"
    ),
    "no rotary_pct read": Fault(
        "redpajama", overlooked("rotary_pct", "rope_parameters"), LOST + "rotary_pct 1.0", BLOCK_0
    ),
    "rotary_pct of the run not read": Fault("pythia", read_of_the_run(rotary_pct=1.0), BLOCK_0),
    "twice the rotary base": both("pythia", times("rotary_emb_base", 2), BLOCK_0),
    "the base of Code Llama not written": Fault(
        "code-llama", config_with(rope_theta=...), WRONG_CONFIG + "rotary_emb_base 10000"
    ),
    "the base of Code Llama not read": Fault(
        "code-llama", overlooked("rope_theta", "rope_parameters"), LOST + "rotary_emb_base 1000000", BLOCK_0
    ),
    "no scaling of rotations written": Fault(
        "llama-3.2", config_with(rope_scaling=...), WRONG_CONFIG + "rope_scaling None"
    ),
    "no scaling of rotations read": Fault(
        "llama-3.2", overlooked("rope_scaling", "rope_parameters"), LOST + "rope_scaling .*llama3", BLOCK_0
    ),
    "scaling of the run not read": Fault("llama-3.2", read_of_the_run(rope_scaling=None), BLOCK_0),
    "neighbours taken for halves": both("gptj", in_module(QKV, cut=separate_heads), BLOCK_0),
    "halves taken for neighbours": both("llama-1", in_module(QKV, cut=separate_interleaved_heads), BLOCK_0),
    "learned positions moved by one": both("gpt2", in_module(POSITIONS, cut=shifted), AT_ONCE),
    "learned positions of OPT moved by one": both("opt", in_module(POSITIONS, cut=shifted), AT_ONCE),
    "no learned positions": Fault("gpt2", in_file("transformer.wpe.weight", torch.zeros_like), AT_ONCE),
    "no learned positions read": Fault(
        "gpt2", read("0.position_embeddings.weight", torch.zeros_like), importing=AT_ONCE
    ),
    # Windows
    "a window wider by one": both("mistral", plus("sliding_window", 1), BLOCK_0),
    "a window narrower by one": both("mistral", plus("sliding_window", -1), BLOCK_0),
    "no window written": Fault("mistral", config_with(sliding_window=None), WRONG_CONFIG + "sliding_window_width None"),
    "no window read": Fault("phi-3", overlooked("sliding_window"), LOST + "sliding_window_width 5", BLOCK_0),
    "the window of the run not read": Fault("mistral", read_of_the_run(sliding_window_width=None), BLOCK_0),
    # Functions
    "tanh in place of the exact GELU": both("pythia", confused("hidden_act", "gelu", "gelu_new"), BLOCK_0),
    "the exact GELU in place of tanh": both("gpt2", confused("activation_function", "gelu", "gelu_new"), BLOCK_0),
    "gate and up exchanged": both("llama-1", in_module("block.mlp.linear1", cut=up_and_gate), BLOCK_0),
    "gate and up exchanged in one tensor": both("phi-3", in_module("block.mlp.linear1", cut=whole), BLOCK_0),
    "the width of a gated MLP not scaled": Fault(
        "llama-1",
        our_keys_with(shapes, unscaled_width),
        r"has 2\.mlp\.linear1\.weight of shape \[172, 32\], and the settings ask for",
        r"6 have another shape \(.*mlp\.gate_proj\.weight is \[86, 32\] and by config\.json \[29, 32\]",
    ),
    "attention and MLP one after the other": both("pythia", confused("use_parallel_residual", True, False), BLOCK_0),
    "attention and MLP beside each other": both("redpajama", confused("use_parallel_residual", True, False), BLOCK_0),
    # Norms
    "another epsilon of LayerNorm": both("pythia", times("layer_norm_eps", 100), BLOCK_0),
    "another epsilon of RMSNorm": both("llama-1", times("rms_norm_eps", 10), BLOCK_0),
    "gains of RMSNorm less 1": Fault("llama-1", in_file(GAIN, lambda gain: gain - 1), BLOCK_1),
    "gains of RMSNorm plus 1": Fault(
        "llama-1", read("3.input_layernorm.scale", lambda gain: gain + 1), importing=BLOCK_1
    ),
    "two norms exchanged": both("pythia", exchanged(FIRST_NORM, SECOND_NORM), BLOCK_0),
    "two norms behind exchanged": both("olmo2", exchanged(SECOND_NORM, "block.post_feedforward_layernorm"), BLOCK_0),
    "no final norm": Fault(
        "llama-1", file_with(lambda tensors: tensors.pop("model.norm.weight")), r"is missing \(model\.norm"
    ),
    # Biases
    "a bias summed twice": Fault("pythia", written(DENSE, twice), f"{DENSE} {READ_BACK}"),
    "a bias twice in the file": Fault("pythia", in_file(DENSE, twice), BLOCK_1),
    "a bias read twice": Fault("pythia", read("2.mlp.linear2.bias", twice), importing=BLOCK_0),
    "no bias of the attention": Fault("pythia", in_file(DENSE, torch.zeros_like), BLOCK_1),
    "no bias of the MLP": Fault(
        "pythia", in_file("gpt_neox.layers.0.mlp.dense_h_to_4h.bias", torch.zeros_like), BLOCK_0
    ),
    "no bias of queries": Fault("qwen2", in_file("model.layers.0.self_attn.q_proj.bias", torch.zeros_like), BLOCK_0),
    "no bias of queries, keys and values read": Fault(
        "qwen2", read("3.attention.query_key_value.bias", torch.zeros_like), importing=BLOCK_1
    ),
    "no bias of the output layer": Fault("gptj", in_file("lm_head.bias", torch.zeros_like), LAST),
    "the bias of the output layer left out": Fault(
        "gptj", file_with(lambda tensors: tensors.pop("lm_head.bias")), r"is missing \(lm_head\.bias"
    ),
    "no bias of the output layer read": Fault("gptj", read("6.final_linear.bias", torch.zeros_like), importing=LAST),
    # Vocabulary and output layer
    "padding taken for rows": Fault(
        "pythia", config_with(vocab_size=64), r"embed_in\.weight is \[61, 32\] and by config"
    ),
    "a row of the vocabulary too few": both(
        "pythia", in_module(EMBEDDING, cut=one_too_few), "does not place every row once"
    ),
    "rows of the vocabulary moved by one": both("pythia", in_module(EMBEDDING, cut=shifted), AT_ONCE),
    "rows of the output layer moved by one": both("pythia", in_module(HEAD, cut=shifted), LAST),
    "embedding and output layer exchanged": both("pythia", exchanged(EMBEDDING, HEAD), AT_ONCE),
    "another output layer beside tied weights": Fault(
        "llama-3.2", file_with(another_head), "lm_head.weight differs from model.emb"
    ),
    "tied weights said to be untied": Fault(
        "llama-3.2", config_with(tie_word_embeddings=False), r"is missing \(lm_head\.weight"
    ),
    "untied weights said to be tied": Fault(
        "llama-1", config_with(tie_word_embeddings=True), "lm_head.weight differs from model.emb"
    ),
    # Files
    "two layers exchanged": both("pythia", layers_exchanged, BLOCK_0),
    "a tensor rounded": Fault("llama-1", written(UP, to_bfloat16), f"{UP} {READ_BACK}"),
    "a tensor rounded in the file": Fault("llama-1", in_file(UP, to_bfloat16), BLOCK_1),
    "a tensor rounded in the checkpoint": Fault(
        "llama-1", in_checkpoint("2.attention.dense.weight", to_bfloat16), importing=BLOCK_0
    ),
    "a file of before": Fault("llama-1", stale_file, "is written twice"),
    "another dtype in config.json": Fault(
        "llama-1", config_with(torch_dtype="float16"), WRONG_CONFIG + "torch_dtype 'float16'"
    ),
    "fewer positions in config.json": Fault(
        "llama-1", config_with(max_position_embeddings=16), WRONG_CONFIG + "max_position_embeddings 16 where 32"
    ),
    "another class in config.json": Fault(
        "llama-1", config_with(architectures=["MistralForCausalLM"]), "this is a MistralForCausalLM"
    ),
    "a setting missing in config.yml": Fault(
        "pythia",
        our_keys_with(to_checkpoint_config, without("rotary_pct")),
        importing=r"config\.yml was not written as it should be: it asks for rotary_pct 1\.0 where 0\.25 belongs",
    ),
    "a setting missing in the checkpoint": Fault(
        "pythia", our_keys_with(shapes, without("rotary_pct")), importing=BLOCK_0
    ),
}
