"""Whether a model of another program is the one that a configuration asks for, said before a weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from megatron.conversion.legacy.layout import find_layout
from megatron.conversion.mapping.architecture import Architecture, architecture_of, config_keys
from megatron.conversion.opening_neox import saved_settings
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.neox_arguments import NeoXArgs

logger = get_logger(__name__)

_EPSILONS = ("layernorm_epsilon", "rms_norm_epsilon", "scalenorm_epsilon")
_USUAL_PADDING = 0.05
"""More rows beyond the tokens than this part of them are hardly padding."""


def check_agreement(theirs: Architecture, args: NeoXArgs, *, vocab_size: int, description: str) -> None:
    """Check that a configuration computes what a model means. vocab_size: rows of the model that is configured, without padding.

    Raises CheckpointError with the keys that differ, as lines to put into a configuration.
    """
    ours = architecture_of(args, vocab_size=vocab_size)
    differing = _differing(theirs, ours)
    if "intermediate_size" in differing and theirs.mlp_width % args.mlp_multiple_of:
        differing["mlp_multiple_of"] = (1, args.mlp_multiple_of)
    lines = [f"  {_line(key, value)}  # you have {yaml_text(mine)}" for key, (value, mine) in differing.items()]
    sentences = [
        *([f"{description} is another model than the one configured. It needs:\n" + "\n".join(lines)] if lines else []),
        *([_about_rows(theirs.vocab_size, vocab_size, args, description)] if theirs.vocab_size != vocab_size else []),
    ]
    if sentences:
        raise CheckpointError("\n".join(sentences))


def check_saved_settings(directory: Path, args: NeoXArgs, *, vocab_size: int) -> None:
    """`check_agreement` with the settings that were saved with a checkpoint of GPT-NeoX; without them, or when they cannot be read, a warning.

    Two settings may differ, as ours mean something else (see `legacy.remarks`): the width of a window, and epsilon of an RMSNorm.
    """
    layout = find_layout(directory, args.iteration)
    try:
        theirs = architecture_of(saved_settings(layout.directory), vocab_size=vocab_size)
    except CheckpointError as error:
        logger.warning(
            f"whether {layout.directory} holds the model that is configured is known by its shapes alone: {error}"
        )
        return
    ours = architecture_of(args, vocab_size=vocab_size)
    if ours.sliding_window_width and theirs.sliding_window_width == ours.sliding_window_width - 1:
        theirs = replace(theirs, sliding_window_width=ours.sliding_window_width)
    if ours.norm == theirs.norm == "rmsnorm":
        theirs = replace(theirs, norm_epsilon=ours.norm_epsilon)
    check_agreement(theirs, args, vocab_size=vocab_size, description=f"{layout.directory} (GPT-NeoX)")


def _differing(theirs: Architecture, ours: Architecture) -> dict[str, tuple[Any, Any]]:
    """Keys of a configuration with the value that the model needs and the one it has."""
    if theirs.pos_emb != "learned":  # elsewhere it is a limit and no shape: a model may be trained with another
        theirs = replace(theirs, max_position_embeddings=ours.max_position_embeddings)
    theirs = replace(theirs, vocab_size=ours.vocab_size)
    needed, given = config_keys(theirs), config_keys(ours)
    keys = [key for key in {**needed, **given} if key in needed or key not in _EPSILONS]
    pairs = {key: (_value(needed, key), _value(given, key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _value(keys: Mapping[str, Any], key: str) -> Any:
    return keys.get(key, NeoXArgs.model_fields[key].default)


def _about_rows(theirs: int, ours: int, args: NeoXArgs, description: str) -> str:
    configured = (
        f"the tokenizer has {ours} tokens" if args.vocab_size is None else f"vocab_size is {ours} in the configuration"
    )
    found = f"{description} has {theirs} rows of vocabulary, and {configured}: "
    if theirs < ours and args.vocab_size is None:
        return (
            found
            + "each token needs a row, so it was trained with another tokenizer; take its own (tokenizer_type, vocab_file)"
        )
    if args.vocab_size is None and theirs - ours > _USUAL_PADDING * ours:
        return found + (
            "likely it was trained with another tokenizer; take its own (tokenizer_type, vocab_file), or set "
            f"vocab_size: {theirs} if it is the right one"
        )
    why = " (rows beyond the tokens are padding that it was trained with)" if theirs > ours else ""
    return found + f"set vocab_size: {theirs}{why}"


def _line(key: str, value: Any) -> str:
    return f"{key}: {yaml_text(value)}"


def yaml_text(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
