"""Models whose tensor-parallel ranks hold other values of what every rank has whole, as GPT-NeoX-20B: what is loaded computes what the ranks
computed together, written down here for itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.conversion.legacy.source import NeoXSource
from megatron.model.spec import BuildContext
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.legacy.neox_files import write_neox
from tests.unit.conversion.legacy.test_source import filled_model, full_tensors
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args

LIKE_20B = {**VARIANTS["pythia"], "bias_gelu_fusion": False, "attention_config": [[["global"], "all"]]}
RANKS = 2
Ranks = list[dict[str, Tensor]]


def rotate(heads: Tensor, channels: int) -> Tensor:
    """Rotary positions of the first channels of [s, b, n, d], channel i with channel i + channels / 2."""
    turning, resting = heads[..., :channels], heads[..., channels:]
    frequencies = 10000.0 ** (-torch.arange(0, channels, 2, dtype=heads.dtype) / channels)
    positions = torch.arange(heads.shape[0], dtype=heads.dtype)
    angles = torch.outer(positions, frequencies)[:, None, None]  # [s, 1, 1, c / 2]
    first, second = turning.chunk(2, dim=-1)
    turned = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
    return torch.cat([*turned, resting], dim=-1)


def rank_attention(hidden: Tensor, own: Mapping[str, Tensor], layer: int, heads: int) -> Tensor:
    """One rank's summand, with its copy of the bias: [s, b, h] -> [s, b, h]."""
    prefix = f"{layer}.attention"
    fused = F.linear(hidden, own[f"{prefix}.query_key_value.weight"], own[f"{prefix}.query_key_value.bias"])
    query, key, value = fused.unflatten(-1, (heads, -1)).chunk(3, dim=-1)
    channels = int(0.25 * query.shape[-1])
    query, key = rotate(query, channels), rotate(key, channels)
    scores = torch.einsum("sbnd,tbnd->bnst", query, key) / math.sqrt(query.shape[-1])
    hidden_keys = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden_keys, -torch.inf).softmax(-1)
    mixed = torch.einsum("bnst,tbnd->sbnd", weights, value).flatten(2)
    return F.linear(mixed, own[f"{prefix}.dense.weight"], own[f"{prefix}.dense.bias"])


def rank_mlp(hidden: Tensor, own: Mapping[str, Tensor], layer: int) -> Tensor:
    prefix = f"{layer}.mlp"
    widened = F.gelu(F.linear(hidden, own[f"{prefix}.dense_h_to_4h.weight"], own[f"{prefix}.dense_h_to_4h.bias"]))
    return F.linear(widened, own[f"{prefix}.dense_4h_to_h.weight"], own[f"{prefix}.dense_4h_to_h.bias"])


def norm(hidden: Tensor, own: Mapping[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(hidden, hidden.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"], eps=1e-5)


def reference_logits(ranks: Ranks, args: NeoXArgs, tokens: Tensor) -> Tensor:
    """Logits [b, s, rows] as the ranks compute them: each adds its biases to its summands, and a block's are reduced once."""
    hidden = F.embedding(tokens, torch.cat([own["0.word_embeddings.weight"] for own in ranks])).transpose(0, 1)
    heads = args.num_attention_heads // len(ranks)
    for layer in range(2, args.num_layers + 2):
        summands = [
            rank_attention(norm(hidden, own, f"{layer}.input_layernorm"), own, layer, heads)
            + rank_mlp(norm(hidden, own, f"{layer}.post_attention_layernorm"), own, layer)
            for own in ranks
        ]
        hidden = hidden + sum(summands)
    last = args.num_layers + 3
    parts = [F.linear(norm(hidden, own, f"{last}.norm"), own[f"{last + 1}.final_linear.weight"]) for own in ranks]
    return torch.cat(parts, dim=-1).transpose(0, 1)


def rewrite(directory: Path, ranks: Ranks) -> None:
    """The files of what ranks have now."""
    for file in directory.glob("global_step7/layer_*"):
        layer, rank = int(file.name[6:8]), int(file.name[15:17])
        prefix = f"{layer}."
        own = {name.removeprefix(prefix): value for name, value in ranks[rank].items() if name.startswith(prefix)}
        torch.save(own, file)


def written(directory: Path, *, gpt_j_residual: bool = True) -> tuple[NeoXArgs, Ranks]:
    args = build_args(**{**LIKE_20B, "gpt_j_residual": gpt_j_residual})
    tensors = full_tensors(args, torch.float64)
    return args, write_neox(directory, args, tensors, ranks=RANKS, names="dense", rows=64)


@pytest.mark.parametrize("copies", ["equal", "different"])
def test_biases_behind_attention_and_mlp_are_summed_as_the_ranks_did(tmp_path: Path, copies: str) -> None:
    args, ranks = written(tmp_path)
    generator = torch.Generator().manual_seed(1)
    if copies == "different":
        for own in ranks:
            for name in own:
                if name.endswith(("attention.dense.bias", "dense_4h_to_h.bias")):
                    own[name] = torch.randn(own[name].shape, generator=generator, dtype=torch.float64)
        rewrite(tmp_path, ranks)
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    tokens = torch.randint(VOCAB_SIZE, (2, 16), generator=generator)
    with torch.no_grad():
        model = filled_model(source, args, VOCAB_SIZE, BuildContext(dtype=torch.float64))
        logits = model(tokens, torch.arange(16).expand(2, 16))
    expected = reference_logits(ranks, args, tokens)[..., :VOCAB_SIZE]
    torch.testing.assert_close(logits, expected, atol=1e-7, rtol=0)  # our angles are of fp32
    assert any("their sum is loaded" in remark for remark in source.remarks(args))


def test_copies_of_norms_that_drifted_are_averaged_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args, ranks = written(tmp_path)
    for name in ranks[1]:
        if "norm" in name:
            ranks[1][name] = ranks[1][name] * (1 + 2**-10)
    rewrite(tmp_path, ranks)
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    with caplog.at_level(logging.WARNING):
        for name in ("2.input_layernorm.weight", "2.input_layernorm.bias", "5.norm.weight"):
            assert torch.equal(source.read(f"{name}/weight"), (ranks[0][name] + ranks[1][name]) / 2)
    assert [record.getMessage().count("the mean is loaded") for record in caplog.records] == [1]


def test_without_gpt_j_residual_one_copy_of_the_bias_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args, ranks = written(tmp_path, gpt_j_residual=False)
    name, theirs = "2.mlp.linear2.bias/weight", "2.mlp.dense_4h_to_h.bias"
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    assert torch.equal(source.read(name), ranks[0][theirs])
    assert not any("sum" in remark for remark in source.remarks(args))
    ranks[1][theirs] = ranks[0][theirs] * (1 + 2**-10)  # drifted apart
    rewrite(tmp_path, ranks)
    mean = (ranks[0][theirs] + ranks[1][theirs]) / 2
    assert torch.equal(NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE).read(name), mean)
    ranks[1][theirs] = ranks[0][theirs].flip(0)  # no copy at all
    rewrite(tmp_path, ranks)
    with caplog.at_level(logging.WARNING):
        total = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE).read(name)
    assert torch.equal(total, ranks[0][theirs] + ranks[1][theirs])
    assert "their sum is loaded" in caplog.text
