"""Whether the model that a checkpoint holds was trained as it is now configured, as far as no shape of a tensor can tell.

The number of heads, say, or how much of a head is rotated: with another value every weight fits, and computes something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from megatron.errors import CheckpointError
from megatron.neox_arguments.arguments import NeoXArgs

SETTINGS = Path("configs") / "config.yml"
"""Where a checkpoint keeps the configuration of its run."""

_COMMENT = "# "

KEYS = (
    *("num_attention_heads", "num_kv_heads", "head_dim", "sliding_window_width"),
    *("use_qk_layernorm", "qk_layernorm_scope"),
    *("pos_emb", "rotary_pct", "rotary_emb_base", "rope_scaling", "opt_pos_emb_offset", "rpe_max_distance"),
    *("norm", "norm_position", "layernorm_epsilon", "rms_norm_epsilon", "scalenorm_epsilon"),
    *("activation", "bias_gelu_fusion", "gpt_j_residual", "gpt_j_tied"),
    "tokenizer_type",
)
"""Keys that change what the weights compute, or what the tokens mean, without changing any shape (or not always)."""


def settings_yaml(args: NeoXArgs) -> str:
    """The configuration of a run as YAML, derived values included, defaults left out; above each key, as a comment, where it comes from."""
    values = args.model_dump(mode="json", exclude_defaults=True)
    return "".join(
        _comment(args.origins().get(key)) + yaml.safe_dump({key: value}) for key, value in sorted(values.items())
    )


def read_origins(checkpoint: Path) -> dict[str, str]:
    """Where the saved settings of a checkpoint came from, by key; without those it does not say."""
    try:
        lines = (checkpoint / SETTINGS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    # Only comments of ours begin a line: the text of a value is indented.
    pairs = [(line, following.partition(":")[0]) for line, following in pairwise(lines) if line.startswith(_COMMENT)]
    return {key: line.removeprefix(_COMMENT) for line, key in pairs}


def read_values(checkpoint: Path) -> Mapping[str, Any] | None:
    """The saved settings of a checkpoint as they are written, without defaults; None when it has none that can be read."""
    return _read(checkpoint / SETTINGS)


def read_settings(checkpoint: Path) -> NeoXArgs:
    """The configuration of the run that a checkpoint is of. Raises CheckpointError when the checkpoint does not have it."""
    saved = _read(checkpoint / SETTINGS)
    if saved is None:
        raise CheckpointError(f"{checkpoint / SETTINGS}, the configuration of the run, is missing or cannot be read")
    try:
        return NeoXArgs.from_resolved(saved)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint / SETTINGS} is not a configuration that this version can read") from error


def settings_warning(checkpoint: Path, args: NeoXArgs) -> str | None:
    """The sentence for a checkpoint that was trained with other settings; None when all agree, or it does not say."""
    saved = _read(checkpoint / SETTINGS)
    if saved is None:
        return None
    ours = args.model_dump(mode="json", include=set(KEYS))
    pairs = {key: (saved.get(key, NeoXArgs.model_fields[key].default), ours[key]) for key in KEYS}
    differing = [f"{key} was {theirs} and is {mine}" for key, (theirs, mine) in pairs.items() if theirs != mine]
    if not differing:
        return None
    return (
        f"{checkpoint} was trained with other settings, with which its weights mean something else: {', '.join(differing)}. "
        f"Unless that is what you want, take the values from {checkpoint / SETTINGS}"
    )


def _comment(origin: str | None) -> str:
    if origin is None:
        return ""
    printable = "".join(
        char if char.isprintable() else "?" for char in origin
    )  # YAML allows no other, not even in comments
    return f"{_COMMENT}{printable}\n"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # a checkpoint may come without, or from elsewhere
        return None
    return content if isinstance(content, dict) else None
