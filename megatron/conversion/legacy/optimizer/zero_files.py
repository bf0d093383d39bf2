"""The files that ZeRO writes, one for each data-parallel rank of each model-parallel rank: which there are, and whether all are there.

[bf16_]zero_pp_rank_{data}_mp_rank_{model}_optim_states.pt     (in old files "optim" follows the number at once)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from megatron.conversion.legacy.layout import Layout
from megatron.errors import CheckpointError
from megatron.foreign import shortened

WEIGHTS_ALONE = (
    "The weights can be loaded without it (no_load_optim: true, or finetune: true to begin a new run with them)"
)
"""Ends what is said of an optimizer's state that cannot be had."""

_ENGINE = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_NAME = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_?optim_states\.pt")


def engine_files(layout: Layout) -> dict[int, Path]:
    """The `mp_rank_..._model_states.pt` of every model-parallel rank, which number the stages of a pipeline first, then tensor ranks.

    Raises CheckpointError when some are missing.
    """
    matches = (_ENGINE.fullmatch(path.name) for path in layout.directory.iterdir())
    found = {int(match[1]): layout.directory / match[0] for match in matches if match}
    size = 1 + max([*found, *_model_ranks(layout.directory)], default=-1)
    size += -size % layout.ranks
    missing = [f"mp_rank_{rank:02d}_model_states.pt" for rank in range(size) if rank not in found]
    if missing:
        raise CheckpointError(f"{layout.directory} lacks {shortened(missing)}: copy all files. {WEIGHTS_ALONE}")
    return dict(sorted(found.items()))


def zero_files(directory: Path, model_ranks: Iterable[int]) -> dict[int, list[Path]]:
    """The files of every model-parallel rank by data-parallel rank; {} where none was written by ZeRO.

    Raises CheckpointError when one is missing below others, or is there twice.
    """
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(directory.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match:
            continue
        other = found.setdefault((int(match[2]), int(match[1])), path)
        if other != path:
            raise CheckpointError(
                f"{other} and {path.name} hold the optimizer's state of the same rank in two runs: remove those of one. {WEIGHTS_ALONE}"
            )
    if not found:
        return {}
    size = 1 + max(data for _, data in found)
    check_files(
        directory, [(model, data) for model in model_ranks for data in range(size) if (model, data) not in found]
    )
    return {model: [found[model, data] for data in range(size)] for model in model_ranks}


def check_files(directory: Path, missing: list[tuple[int, int]]) -> None:
    """Raise CheckpointError when files of some (model-parallel rank, data-parallel rank) are missing."""
    if missing:
        names = shortened([f"zero_pp_rank_{data}_mp_rank_{model:02d}_optim_states.pt" for model, data in missing])
        raise CheckpointError(
            f"{directory} lacks files of the optimizer's state: {names}. Copy all files. {WEIGHTS_ALONE}"
        )


def _model_ranks(directory: Path) -> list[int]:
    return [int(match[2]) for match in (_NAME.fullmatch(path.name) for path in directory.iterdir()) if match]
