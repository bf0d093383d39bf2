"""Directories as GPT-NeoX writes them, made of full tensors of ours: cut by hand, not by the code that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from megatron.neox_arguments import NeoXArgs

Names = Literal["linear", "dense", "w", "engine"]
"""Generations of names: linear1/linear2, dense_h_to_4h/dense_4h_to_h, w1/w3/w2, Transformer Engine's."""

_COLUMNS = ("attention.dense.weight", "mlp.linear2.weight", "rm_linear.weight")
_ROWS = ("attention.query_key_value", "mlp.linear1", "word_embeddings", "final_linear")


def write_neox(
    directory: Path,
    args: NeoXArgs,
    tensors: Mapping[str, Tensor],
    *,
    ranks: int = 1,
    names: Names = "linear",
    rows: int | None = None,
    sequential: bool = False,
    step: int = 7,
    settings: Mapping[str, Any] | None = None,
    by_query_head: bool = False,
) -> list[dict[str, Tensor]]:
    """Write parameters ("2.mlp.linear1.weight") for `ranks` tensor-parallel ranks; what each has, by name with the layer's number.

    rows: of vocabulary, with padding of ones; settings: what the configuration of the run is said to be.
    """
    how: dict[str, Any] = {"names": names, "rows": rows, "by_query_head": by_query_head}
    of_ranks = [cut_for_rank(args, tensors, rank, ranks, **how) for rank in range(ranks)]
    folder = directory / f"global_step{step}"
    (folder / "configs").mkdir(parents=True)
    (directory / "latest").write_text(folder.name)
    usual = {"make_vocab_size_divisible_by": 64 // ranks, "model-parallel-size": ranks}
    values = usual if settings is None else settings
    (folder / "configs" / "run.yml").write_text(yaml.safe_dump(dict(values)))
    for rank, own in enumerate(of_ranks):
        module = {f"sequential.{name}": value for name, value in own.items()} if sequential else None
        torch.save({"module": module, "iteration": step}, folder / f"mp_rank_{rank:02d}_model_states.pt")
        for layer in () if sequential else sorted({int(name.partition(".")[0]) for name in own}):
            prefix = f"{layer}."
            content = {name.removeprefix(prefix): value for name, value in own.items() if name.startswith(prefix)}
            torch.save(content, folder / f"layer_{layer:02d}-model_{rank:02d}-model_states.pt")
    return of_ranks


def cut_for_rank(
    args: NeoXArgs,
    tensors: Mapping[str, Tensor],
    rank: int,
    ranks: int,
    *,
    names: Names = "linear",
    rows: int | None = None,
    by_query_head: bool = False,
) -> dict[str, Tensor]:
    """What a tensor-parallel rank has, under the names of a generation."""
    own: dict[str, Tensor] = {}
    for name, full in tensors.items():
        layer, _, path = name.partition(".")
        part = _cut(args, path, _padded(path, full, rows), rank, ranks, by_query_head=by_query_head)
        for new_path, tensor in _renamed(path, part, names, gated=args.gated_activation).items():
            own[f"{layer}.{new_path}"] = tensor.clone()
        if path == "attention.dense.weight":
            own[f"{layer}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    return own


def _padded(path: str, full: Tensor, rows: int | None) -> Tensor:
    if rows is None or not path.startswith(("word_embeddings", "final_linear")):
        return full
    return torch.cat([full, full.new_ones(rows - full.shape[0], full.shape[1])])


def _cut(args: NeoXArgs, path: str, full: Tensor, rank: int, ranks: int, *, by_query_head: bool) -> Tensor:
    if path.startswith("attention.query_key_value") and args.num_kv_heads != args.num_attention_heads:
        query, kv = args.num_attention_heads * args.head_dim, args.num_kv_heads * args.head_dim
        parts = [part.chunk(ranks)[rank] for part in full.split((query, kv, kv))]
        if not by_query_head:
            return torch.cat(parts)
        heads = args.num_attention_heads // ranks
        return torch.cat([part.chunk(heads)[head] for head in range(heads) for part in parts])
    if path.startswith("mlp.linear1") and args.gated_activation:
        return torch.cat([half.chunk(ranks)[rank] for half in full.chunk(2)])
    if path in _COLUMNS:
        return full.chunk(ranks, dim=1)[rank]
    return full.chunk(ranks)[rank] if path.startswith(_ROWS) else full


def _renamed(path: str, part: Tensor, names: Names, *, gated: bool) -> dict[str, Tensor]:
    module, _, leaf = path.rpartition(".")
    if names == "dense":
        return {path.replace("linear1", "dense_h_to_4h").replace("mlp.linear2", "mlp.dense_4h_to_h"): part}
    if names == "w" and module == "mlp.linear1" and gated:
        up, gate = part.chunk(2)
        return {f"mlp.w1.{leaf}": gate, f"mlp.w3.{leaf}": up}
    if names == "w":
        return {path.replace("mlp.linear2", "mlp.w2"): part}
    if names == "engine":
        if module == "mlp.linear1" and gated:
            part = torch.cat(part.chunk(2)[::-1])
        new = {
            "mlp.linear1": f"mlp.fc1_{leaf}",
            "mlp.linear2": f"mlp.fc2_{leaf}",
            "attention.query_key_value": f"attention.qkv.{leaf}",
            "attention.dense": f"attention.proj.{leaf}",
            "post_attention_layernorm": f"mlp.layer_norm_{'weight' if leaf == 'scale' else leaf}",
        }
        return {new.get(module, path): part}
    return {path: part}
