"""Llama in Meta's form, read by us, computes what transformers compute from the same weights in theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.conversion.mapping.architecture import config_keys
from megatron.conversion.mapping.shapes import model_specs
from megatron.conversion.meta_llama.params import architecture_of_params
from megatron.conversion.meta_llama.source import MetaLlamaSource
from megatron.errors import CheckpointError
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.neox_arguments.derive import derive_mlp_width
from tests.unit.model.builders import parameters_by_name

ROWS, WIDTH, HEADS, KEY_HEADS, LAYERS = 64, 32, 4, 2, 2
PARAMS = {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": KEY_HEADS, "norm_eps": 1e-5}
LLAMA_3 = {**PARAMS, "rope_theta": 500000.0, "use_scaled_rope": True, "vocab_size": ROWS}
SLOWED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def their_model(params: dict[str, Any]) -> Any:
    """transformers' model with random weights, gains included."""
    from transformers import LlamaConfig, LlamaForCausalLM

    kind = SLOWED if params.get("use_scaled_rope") else {"rope_type": "default"}
    rotations = {"rope_theta": params.get("rope_theta", 10000.0), **kind}
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=params.get("n_kv_heads", HEADS),
        rms_norm_eps=params["norm_eps"],
        max_position_embeddings=131072,
        rope_parameters=rotations,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    return model


def neighbours(matrix: Tensor, heads: int) -> Tensor:
    """Rows of heads that turn channel i with i + d/2, for one that turns 2 i with 2 i + 1."""
    first, second = matrix.unflatten(0, (heads, 2, -1)).unbind(1)
    return torch.stack([first, second], dim=2).flatten(0, 2)


def meta_tensors(model: Any) -> dict[str, Tensor]:
    """Full tensors under Meta's names."""
    state = model.state_dict()
    tensors = {"tok_embeddings.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    tensors |= {"output.weight": state["lm_head.weight"], "rope.freqs": torch.ones(4)}
    for layer in range(LAYERS):
        theirs, meta = f"model.layers.{layer}", f"layers.{layer}"
        tensors[f"{meta}.attention.wq.weight"] = neighbours(state[f"{theirs}.self_attn.q_proj.weight"], HEADS)
        tensors[f"{meta}.attention.wk.weight"] = neighbours(state[f"{theirs}.self_attn.k_proj.weight"], KEY_HEADS)
        tensors[f"{meta}.attention.wv.weight"] = state[f"{theirs}.self_attn.v_proj.weight"]
        tensors[f"{meta}.attention.wo.weight"] = state[f"{theirs}.self_attn.o_proj.weight"]
        for number, name in ((1, "gate"), (2, "down"), (3, "up")):
            tensors[f"{meta}.feed_forward.w{number}.weight"] = state[f"{theirs}.mlp.{name}_proj.weight"]
        tensors[f"{meta}.attention_norm.weight"] = state[f"{theirs}.input_layernorm.weight"]
        tensors[f"{meta}.ffn_norm.weight"] = state[f"{theirs}.post_attention_layernorm.weight"]
    return tensors


def write_meta(
    directory: Path, tensors: dict[str, Tensor], params: dict[str, Any], *, files: int = 1, embedding_dim: int = 0
) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "params.json").write_text(json.dumps(params))
    for rank in range(files):
        own = {}
        for name, full in tensors.items():
            dim = 1 if name.endswith(("wo.weight", "w2.weight")) else 0
            dim = embedding_dim if name.startswith("tok") else dim
            own[name] = (full if "norm" in name or "freqs" in name else full.chunk(files, dim=dim)[rank]).clone()
        torch.save(own, directory / f"consolidated.{rank:02d}.pth")


def our_logits(source: MetaLlamaSource, tokens: Tensor, positions: Tensor) -> Tensor:
    model = SequentialModel(model_specs(source.architecture), BuildContext(), seed=None)
    with torch.no_grad():
        for name, parameter in parameters_by_name(model).items():
            parameter.copy_(source.read(f"{name}/weight"))
        logits: Tensor = model(tokens, positions)
    return logits


@pytest.mark.parametrize(
    ("params", "files", "embedding_dim"), [(LLAMA_3, 1, 0), (LLAMA_3, 2, 0), ({**PARAMS, "vocab_size": -1}, 2, 1)]
)
def test_logits_are_those_of_transformers(
    tmp_path: Path, params: dict[str, Any], files: int, embedding_dim: int
) -> None:
    model = their_model(params)
    write_meta(tmp_path, meta_tensors(model), params, files=files, embedding_dim=embedding_dim)
    source = MetaLlamaSource(tmp_path)
    tokens = torch.randint(ROWS, (2, 16), generator=torch.Generator().manual_seed(2))
    positions = torch.arange(100, 116).expand(2, 16)
    with torch.no_grad():
        expected = model(tokens, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(our_logits(source, tokens, positions), expected, atol=1e-5, rtol=1e-5)
    assert source.architecture.mlp_width == 48
    assert source.shapes["6.final_linear.weight/weight"] == (ROWS, WIDTH)


def plain_tensors(*, width: int = 48) -> dict[str, Tensor]:
    """Random tensors of the model of PARAMS, for what needs no logits."""
    shapes = {"tok_embeddings": (ROWS, WIDTH), "output": (ROWS, WIDTH), "norm": (WIDTH,)}
    for layer in range(LAYERS):
        prefix = f"layers.{layer}"
        shapes |= {f"{prefix}.attention.w{which}": (16 if which in "kv" else 32, WIDTH) for which in "qkvo"}
        shapes |= {f"{prefix}.feed_forward.w{which}": (width, WIDTH) for which in (1, 3)}
        shapes[f"{prefix}.feed_forward.w2"] = (WIDTH, width)
        shapes |= {f"{prefix}.attention_norm": (WIDTH,), f"{prefix}.ffn_norm": (WIDTH,)}
    generator = torch.Generator().manual_seed(3)
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("output", ["absent", "equal"])
def test_an_output_layer_that_is_the_embedding_is_tied(tmp_path: Path, output: str) -> None:
    tensors = plain_tensors()
    embedding = tensors["tok_embeddings.weight"]
    tensors["output.weight"] = embedding.clone()
    if output == "absent":
        del tensors["output.weight"]
    write_meta(tmp_path, tensors, PARAMS)
    source = MetaLlamaSource(tmp_path)
    assert not source.architecture.no_weight_tying
    assert "6.final_linear.weight/weight" not in source.shapes
    assert torch.equal(source.read("0.word_embeddings.weight/weight"), embedding)


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        MetaLlamaSource(directory)
    return str(caught.value).replace(str(directory), "DIR")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    tensors = plain_tensors()
    write_meta(tmp_path, {**tensors, "layers.0.attention.bias": torch.ones(2)}, PARAMS)
    assert refusal(tmp_path) == "DIR does not hold the model of its params.json: layers.0.attention.bias is unknown"
    write_meta(tmp_path, {name: value for name, value in tensors.items() if "1.ffn_norm" not in name}, PARAMS)
    assert refusal(tmp_path).endswith(": layers.1.ffn_norm.weight is missing in a file")
    write_meta(tmp_path, tensors, {**PARAMS, "n_kv_heads": 1})
    assert "layers.0.attention.wk.weight is [16, 32], not [8, 32]" in refusal(tmp_path)
    write_meta(tmp_path, tensors, PARAMS, files=2)
    second = tmp_path / "consolidated.01.pth"
    torch.save({**torch.load(second), "norm.weight": torch.zeros(WIDTH)}, second)
    assert refusal(tmp_path).endswith(": norm.weight is not the same in all files")
    (tmp_path / "consolidated.00.pth").unlink()
    assert refusal(tmp_path) == "DIR is incomplete: there is no consolidated.00.pth"


def test_settings_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    write_meta(tmp_path, plain_tensors(), {**PARAMS, "vision_chunk_size": 448, "moe": None})
    assert "params.json has vision_chunk_size: only Llama 1, 2, 3 and 3.1 to 3.3 for text" in refusal(tmp_path)
    (tmp_path / "params.json").write_text('{"dim": 4}')
    assert "params.json has no n_layers, n_heads, norm_eps" in refusal(tmp_path)
    (tmp_path / "params.json").write_text("{")
    assert "params.json cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("params", "width", "context"),
    [
        ({"dim": 4096, "n_heads": 32, "multiple_of": 256}, 11008, 4096),
        ({"dim": 8192, "n_heads": 64, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_kv_heads": 8}, 28672, 4096),
        ({"dim": 4096, "n_heads": 32, "multiple_of": 1024, "ffn_dim_multiplier": 1.3, "rope_theta": 5e5}, 14336, 8192),
    ],
)
def test_published_sizes_become_our_keys(params: dict[str, Any], width: int, context: int) -> None:
    keys = config_keys(architecture_of_params({**params, "n_layers": 2, "norm_eps": 1e-5}, vocab_rows=32000))
    size = {"intermediate_size": keys["intermediate_size"], "expansion_factor": None, "multiple_of": 1, "gated": True}
    assert derive_mlp_width(params["dim"], **size) == width
    assert keys["max_position_embeddings"] == context
    assert keys["num_kv_heads"] == params.get("n_kv_heads", params["n_heads"])
    assert (keys["norm"], keys["rms_norm_epsilon"], keys["activation"]) == ("rmsnorm", 1e-5, "swiglu")
    assert not any(keys[f"use_bias_in_{where}"] for where in ("mlp", "attn_linear", "attn_output"))


def test_slowed_rotations_of_the_small_models_differ() -> None:
    params = {"n_layers": 2, "n_heads": 32, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": True}
    scalings = [architecture_of_params({**params, "dim": dim}, vocab_rows=128256).rope_scaling for dim in (2048, 4096)]
    assert [scaling and scaling["factor"] for scaling in scalings] == [32.0, 8.0]
