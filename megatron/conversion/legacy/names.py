"""Which tensors in a layer's files of GPT-NeoX hold a parameter of ours, over all generations of names.

MLPs were called `dense_h_to_4h`/`dense_4h_to_h` (GPT-NeoX-20B, Pythia), `w1` (gate), `w3` (up) and `w2` (down) in Llama models, and are called
`linear1`/`linear2` since September 2024 (https://github.com/EleutherAI/gpt-neox/pull/1212). With Transformer Engine the norm in front of the
MLP is part of it, attention has other names, and norms may be wrapped in a module `norm`. RMSNorm calls its weight `scale`, but not in the
fused variants.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from megatron.conversion.legacy.rank_rows import GroupedRows, Join, grouped_rows, halves_exchanged, only, stacked
from megatron.conversion.mapping.packing import Heads

_NO_WEIGHTS = re.compile(r".*\.rotary_emb(eddings)?\.inv_freq|.*\.alibi_embed\.slopes|(.*\.)?_extra_state")
_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
OLD_MLPS = {"mlp.dense_4h_to_h.weight": "regular", "mlp.w2.weight": "llama"}
"""What files of before September 2024 have, and later ones do not, with the `mlp_type` that they had it for."""
_UNUSED_WHERE_TIED = "post_attention_layernorm."


@dataclass(frozen=True)
class Reading:
    """theirs: the names of the tensors of a layer's file that hold a parameter; join: makes a rank's part of ours of them."""

    theirs: tuple[str, ...]
    join: Join


@dataclass(frozen=True)
class Traits:
    """What of a model decides how its tensors are read. heads: of one rank; is_gated: the MLP has a gate; grouped: the order of rows where heads
    share keys; is_parallel: `gpt_j_residual`; has_tied_norm: `gpt_j_tied`, with which GPT-NeoX keeps a second norm that nothing uses."""

    heads: Heads
    is_gated: bool
    is_parallel: bool
    has_tied_norm: bool
    grouped: GroupedRows = "blocks"


def find_reading(parameter: str, there: Collection[str], traits: Traits) -> Reading | None:
    """How to read a parameter of ours (`"mlp.linear1.weight"`, without its layer's number) from a file with these tensors; None: it is not there."""
    return next((reading for reading in _candidates(parameter, traits) if set(reading.theirs) <= set(there)), None)


def is_parameter(name: str) -> bool:
    """Whether a tensor in a file is a parameter, not a table that follows from the settings, or the state of Transformer Engine."""
    return not _NO_WEIGHTS.fullmatch(name)


def unused_names(there: Collection[str], used: Collection[str], traits: Traits) -> list[str]:
    """Tensors in a layer's file that hold weights of which we know nothing."""
    left = (name for name in there if name not in used and is_parameter(name))
    return [name for name in left if not (traits.has_tied_norm and name.startswith(_UNUSED_WHERE_TIED))]


def _candidates(parameter: str, traits: Traits) -> Iterator[Reading]:
    module, _, leaf = parameter.rpartition(".")
    if module == "attention.query_key_value":
        is_grouped = traits.heads.query != traits.heads.key_value
        join = grouped_rows(traits.grouped, traits.heads) if is_grouped else only
        yield Reading((parameter,), join)
        yield Reading((f"attention.qkv.{leaf}",), grouped_rows("groups", traits.heads) if is_grouped else only)
        return
    yield Reading((parameter,), only)
    if module == "attention.dense":
        yield Reading((f"attention.proj.{leaf}",), only)
    elif module == "mlp.linear1":
        yield Reading((f"mlp.dense_h_to_4h.{leaf}",), only)
        if traits.is_gated:
            yield Reading((f"mlp.w3.{leaf}", f"mlp.w1.{leaf}"), stacked)
        yield Reading((f"mlp.fc1_{leaf}",), halves_exchanged if traits.is_gated else only)
    elif module == "mlp.linear2":
        yield from (
            Reading((name,), only) for name in (f"mlp.dense_4h_to_h.{leaf}", f"mlp.w2.{leaf}", f"mlp.fc2_{leaf}")
        )
    elif module in _NORMS:
        yield from _norm_candidates(module, leaf)


def _norm_candidates(module: str, leaf: str) -> Iterator[Reading]:
    other_leaf = "weight" if leaf == "scale" else leaf
    yield from (Reading((f"{name}.{other_leaf}",), only) for name in (module, f"{module}.norm"))
    if module == "post_attention_layernorm":
        yield Reading((f"mlp.layer_norm_{other_leaf}",), only)
