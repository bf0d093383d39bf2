"""A checkpoint of GPT-NeoX without a run to load it into: the settings are those that were saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.conversion.legacy.layer_files import LayerFiles
from megatron.conversion.legacy.layout import Layout, find_layout, saved_values
from megatron.conversion.legacy.source import NeoXSource
from megatron.errors import CheckpointError, NeoXError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.neox_arguments.resolving.smallest_world import smallest_world

_OF_A_RUN = ("load", "iteration", "finetune", "use_checkpoint_lr_scheduler", "s3_path")
"""Settings that say nothing of the model, and of which only the machine that they were made for can say whether they are right."""
_EMBEDDING = "word_embeddings.weight"


def open_neox(
    directory: Path,
    *,
    iteration: int | None = None,
    trusted: bool = False,
    vocab_size: int | None = None,
    args: NeoXArgs | None = None,
) -> tuple[NeoXSource, NeoXArgs, int]:
    """A checkpoint in `directory`, its settings, and the rows of its vocabulary: `vocab_size`, else all there are, padding included.

    args: settings in place of the saved ones. Raises CheckpointError when it has none that can be read, and as `NeoXSource` does.
    """
    layout = find_layout(directory, iteration)
    if args is None:
        args = saved_settings(layout.directory, advice=" Give those that it was trained with (--config_file)")
    rows = vocab_size or args.vocab_size or _rows(layout, trusted=trusted)
    return NeoXSource(directory, args, vocab_rows=rows, trusted=trusted, iteration=iteration), args, rows


def saved_settings(directory: Path, *, advice: str = "") -> NeoXArgs:
    """The settings that were saved with the step in a directory, as of one process.

    Raises CheckpointError, ending with `advice`, when there are none that can be read.
    """
    saved: Mapping[str, Any] = saved_values(directory)
    if not saved:
        raise CheckpointError(f"{directory} has no settings (YAML files in a folder configs).{advice}")
    values = ConfigValues.from_dict({key: value for key, value in saved.items() if key not in _OF_A_RUN})
    try:
        return NeoXArgs.from_values(values, world_size=smallest_world(values), planning=True)
    except NeoXError as error:
        raise CheckpointError(f"the settings saved in {directory} cannot be read here: {error}.{advice}") from error


def _rows(layout: Layout, *, trusted: bool) -> int:
    files = LayerFiles(layout, trusted=trusted)
    found = [tensors[_EMBEDDING] for tensors in files.ranks(0) if _EMBEDDING in tensors]
    if not found:
        raise CheckpointError(f"{layout.directory} has no {_EMBEDDING}: it is no language model of GPT-NeoX")
    return sum(int(tensor.shape[0]) for tensor in found)
