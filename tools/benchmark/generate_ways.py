"""The ways to generate that tools/benchmark/generate.py compares: ours, transformers with either of its caches, litgpt, on the same weights.

All are greedy, in the settings that are their own, and read the same files, which `write_model` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from megatron.conversion.export.config import SpecialTokens, write_configs
from megatron.conversion.export.weights import export_weights
from megatron.conversion.loading import load_into_module
from megatron.conversion.mapping.architecture import Architecture, config_keys
from megatron.conversion.mapping.choose import family_for
from megatron.generation.complete import CompletionSettings, decode_rows, row_of
from megatron.generation.decode import Decoder
from megatron.generation.model import build_inference_model
from megatron.mpu.groups import SINGLE, single_process_groups
from megatron.neox_arguments import NeoXArgs
from tools.benchmark.random_model import RandomSource, pythia

Tokens = list[list[int]]
Tick = Callable[[], None]
Generate = Callable[[Tokens, int, Tick], Tokens]
"""Prompts of one length, how many tokens shall follow each, and what to call whenever all rows have one more -> those tokens."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def llama(layers: int, hidden: int, heads: int, *, kv_heads: int, width: int, rows: int = 50304) -> Architecture:
    """The architecture of Llama in a size. width: of the MLP; rows: of the vocabulary."""
    return Architecture(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        mlp_width=width,
        vocab_size=rows,
        max_position_embeddings=2048,
        activation="swiglu",
        norm="rmsnorm",
    )


MODELS = {
    "pythia 160M": pythia(12, 768, 12),
    "llama 150M": llama(12, 768, 12, kv_heads=4, width=2048),
    "pythia 1B": pythia(16, 2048, 8),
    "pythia tiny": pythia(2, 64, 4, rows=512),
    "llama tiny": llama(2, 64, 4, kv_heads=2, width=128, rows=512),
}


def write_model(architecture: Architecture, directory: Path, *, dtype: torch.dtype) -> None:
    """A model with random weights as a directory of transformers."""
    torch.manual_seed(1234)
    family = family_for(architecture)
    write_configs(directory, architecture, family, dtype=dtype, tokens=SpecialTokens())
    export_weights(RandomSource(architecture), architecture, family, directory, dtype=dtype)


def ours(architecture: Architecture, directory: Path, *, dtype: torch.dtype, device: torch.device) -> Generate:
    """What generate.py runs, with the weights of `load: hf:`."""
    precision = {torch.float32: "fp32", torch.bfloat16: "bfloat16"}[dtype]
    keys = {"seq_length": 128, "train_iters": 1, "train_micro_batch_size_per_gpu": 1, "precision": precision}
    args = NeoXArgs.from_dict({**keys, **config_keys(architecture), "load": f"hf:{directory}"})
    rows = architecture.vocab_size
    model = build_inference_model(args, vocab_size=rows, groups=single_process_groups(), device=device)
    load_into_module(args, model, vocab_size=rows, group=SINGLE)
    model.pack_weights()
    decoder = Decoder(model, vocab_size=rows, max_positions=architecture.max_position_embeddings)
    tokenizer: Any = _NoText()

    def generate(prompts: Tokens, count: int, tick: Tick) -> Tokens:
        settings = CompletionSettings(count)
        rows = [row_of(tokenizer, prompt, settings) for prompt in prompts]
        for _ in decode_rows(decoder, prompts, rows, settings, samples=range(len(prompts))):
            tick()
        return [row.completion("length").tokens for row in rows]

    return generate


class _NoText:
    """A tokenizer for ids that mean nothing."""

    eod = -1

    def continuation(self, prompt: object, tokens: object) -> str:
        return ""


def transformers(directory: Path, *, dtype: torch.dtype, device: torch.device, cache: str | None) -> Generate:
    """`generate()` of Hugging Face. cache: `static`, or None for the one that it takes by itself, which grows."""
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    class Ticks(BaseStreamer):
        """Is given the prompts and then the tokens of each step, on the host."""

        def __init__(self, tick: Tick) -> None:
            self.tick, self.began = tick, False

        def put(self, value: object) -> None:
            if self.began:
                self.tick()
            self.began = True

        def end(self) -> None:
            pass

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device).eval()

    def generate(prompts: Tokens, count: int, tick: Tick) -> Tokens:
        ids = torch.tensor(prompts, device=device)
        text = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            cache_implementation=cache,
            streamer=Ticks(tick),
        )
        tokens: Tokens = text[:, ids.shape[1] :].tolist()
        return tokens

    return generate


def litgpt(architecture: Architecture, directory: Path, *, dtype: torch.dtype, device: torch.device) -> Generate:
    """litgpt's `generate_fn`, over which its `generate` loops, and for several rows its batched form."""
    from litgpt.generate.base import batched_generate_fn, generate_fn

    model = litgpt_model(architecture, directory).to(device, dtype).eval()
    greedy = {"temperature": 0.0, "top_p": 0.0}

    def generate(prompts: Tokens, count: int, tick: Tick) -> Tokens:
        ids = torch.tensor(prompts, device=device)
        length = ids.shape[1] + count
        model.clear_kv_cache()
        model.max_seq_length = length
        model.set_kv_cache(batch_size=len(prompts), device=device, dtype=dtype)
        if len(prompts) == 1:
            steps = generate_fn(model, ids[0], length, include_prompt=False, include_eos=False, **greedy)
        else:
            steps = batched_generate_fn(model, ids, length, sample_args=greedy, include_prompt=False, include_eos=False)
        taken = []
        for step in steps:
            taken.append(torch.stack([*step]).flatten())
            tick()
        tokens: Tokens = torch.stack(taken, dim=1).tolist()
        return tokens

    return generate


def litgpt_model(architecture: Architecture, directory: Path) -> torch.nn.Module:
    """The model that `write_model` has written, as litgpt builds it."""
    from litgpt import GPT, Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_gpt_neox, copy_weights_hf_llama
    from safetensors.torch import load_file

    sizes = {
        "block_size": architecture.max_position_embeddings,
        "vocab_size": architecture.vocab_size,
        "padded_vocab_size": architecture.vocab_size,
        "n_layer": architecture.num_layers,
        "n_head": architecture.num_attention_heads,
        "n_query_groups": architecture.num_kv_heads,
        "n_embd": architecture.hidden_size,
        "head_size": architecture.head_dim,
        "rotary_percentage": architecture.rotary_pct,
        "intermediate_size": architecture.mlp_width,
        "norm_eps": architecture.norm_epsilon,
    }
    theirs = {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}
    weights: dict[str, torch.Tensor] = {}
    if architecture.gated:
        kind = {"norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP"}
        config = Config(**sizes, **kind, parallel_residual=False, bias=False)
        copy_weights_hf_llama(config, {}, weights, theirs)
    else:
        config = Config(**sizes, parallel_residual=True, bias=True)
        copy_weights_gpt_neox(config, weights, theirs)
    model = GPT(config)
    model.load_state_dict(weights)
    return model


def load_ways(
    architecture: Architecture, directory: Path, *, dtype: torch.dtype, device: torch.device
) -> Mapping[str, Generate]:
    """All ways whose package is installed, by name; ours is the first."""
    where: dict[str, Any] = {"dtype": dtype, "device": device}
    ways = {
        "ours": ours(architecture, directory, **where),
        "transformers": transformers(directory, **where, cache=None),
        "transformers, static cache": transformers(directory, **where, cache="static"),
    }
    if find_spec("litgpt"):
        ways["litgpt"] = litgpt(architecture, directory, **where)
    return ways
