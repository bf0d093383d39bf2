"""`params.json` beside Meta's weights of Llama 1, 2, 3 and 3.1 to 3.3, as an architecture of ours.

It does not say how long a context the model was trained with, nor (but for a later key) how much rotations are slowed down: both follow from
what else it says. Meta's own code is the source of the rest (https://github.com/meta-llama/llama, https://github.com/meta-llama/llama3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.checkpointing.errors import reason_of
from megatron.conversion.mapping.architecture import Architecture, build_architecture
from megatron.errors import CheckpointError

PARAMS = "params.json"
Params = Mapping[str, Any]

_NEEDED = ("dim", "n_layers", "n_heads", "norm_eps")
_KNOWN = (
    *_NEEDED,
    *("n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier", "rope_theta", "use_scaled_rope"),
    *("rope_scaling_factor", "high_freq_factor", "max_batch_size", "max_seq_len"),
)
_SMALL_WIDTHS = (2048, 3072)
"""Of Llama 3.2 1B and 3B, whose rotations are slowed down more."""
_CONTEXT_OF_LLAMA_3 = 8192


def read_params(directory: Path) -> Params:
    """The settings in `params.json`. Raises CheckpointError when it cannot be read, lacks something, or says what we do not know."""
    path = directory / PARAMS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)})") from error
    params = content.get("model", content) if isinstance(content, dict) else {}
    missing = [name for name in _NEEDED if name not in params]
    if missing:
        raise CheckpointError(f"{path} has no {', '.join(missing)}: it is not that of a Llama model of Meta")
    unknown = sorted(name for name, value in params.items() if name not in _KNOWN and value is not None)
    if unknown:
        raise CheckpointError(
            f"{path} has {', '.join(unknown)}: only Llama 1, 2, 3 and 3.1 to 3.3 for text can be read"
        )
    return params


def architecture_of_params(
    params: Params, *, vocab_rows: int, mlp_width: int | None = None, is_tied: bool = False
) -> Architecture:
    """What the settings describe. vocab_rows: rows of the vocabulary, of which Llama 1 and 2 say -1; mlp_width: as the weights have it, None = as
    Meta's code computes it; is_tied: the output layer is the embedding."""
    theta = params.get("rope_theta") or 10000.0
    if theta != int(theta):
        raise CheckpointError(f"rope_theta is {theta} in {PARAMS}, and only whole numbers can be expressed here")
    heads = params["n_heads"]
    return build_architecture(
        {
            "num_layers": params["n_layers"],
            "hidden_size": params["dim"],
            "num_attention_heads": heads,
            "num_kv_heads": params.get("n_kv_heads") or heads,
            "head_dim": params["dim"] // heads,
            "mlp_width": mlp_width or _mlp_width(params),
            "vocab_size": vocab_rows,
            "max_position_embeddings": _context(params),
            "activation": "swiglu",
            "norm": "rmsnorm",
            "norm_epsilon": params["norm_eps"],
            "rotary_emb_base": int(theta),
            "rope_scaling": _scaling(params) if params.get("use_scaled_rope") else None,
            "no_weight_tying": not is_tied,
        }
    )


def _mlp_width(params: Params) -> int:
    """Two thirds of four times the width, times a factor, rounded down each time; then up to a multiple."""
    width = int(2 * (4 * params["dim"]) / 3)
    if params.get("ffn_dim_multiplier") is not None:
        width = int(params["ffn_dim_multiplier"] * width)
    multiple = params.get("multiple_of") or 256
    return int(multiple * -(-width // multiple))


def _context(params: Params) -> int:
    """Tokens that the model was trained with at most: 128k since 3.1, 8k for 3, 16k for Code Llama, 4k for 2; 1 had 2k, and says nothing else than 2."""
    if params.get("use_scaled_rope"):
        return 131072
    by_theta = {500000: _CONTEXT_OF_LLAMA_3, 1000000: 16384}
    return by_theta.get(int(params.get("rope_theta") or 0), 4096)


def _scaling(params: Params) -> dict[str, Any]:
    """The slowed rotations of Llama 3.1, by 8; 3.2 for small devices slows down by 32."""
    usual = 32.0 if params["dim"] in _SMALL_WIDTHS else 8.0
    return {
        "type": "llama3",
        "factor": params.get("rope_scaling_factor") or usual,
        "low_freq_factor": 1.0,
        "high_freq_factor": params.get("high_freq_factor") or 4.0,
        "original_max_position_embeddings": _CONTEXT_OF_LLAMA_3,
    }
