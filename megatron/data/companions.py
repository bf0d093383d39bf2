"""Companions of a dataset of text, document by document: of `mine_text_document` labels are `mine_text_label_document`, and rewards
`mine_text_reward_document`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from megatron.data.indexed_dataset import bin_path, idx_path
from megatron.errors import DataError

DOCUMENT = "_document"
COMPANIONS = ("label", "reward")


def companion_of(prefix: Path, kind: str) -> Path:
    """The prefix of the companion of a text that is of one of the COMPANIONS."""
    return prefix.with_name(f"{prefix.name.removesuffix(DOCUMENT)}_{kind}{DOCUMENT}")


def companions_of(prefix: Path) -> tuple[Path, ...]:
    """The prefixes of all companions that a text may have."""
    return tuple(companion_of(prefix, kind) for kind in COMPANIONS)


def is_there(prefix: Path) -> bool:
    """Whether there is a file of a dataset of this prefix."""
    return bin_path(prefix).exists() or idx_path(prefix).exists()


def check_none_stale(outputs: Collection[Path]) -> None:
    """Raise DataError when beside one of `outputs` lies a companion that is not written with it, and so would be of other documents."""
    for output in outputs:
        for companion in companions_of(output):
            if companion not in outputs and is_there(companion):
                raise DataError(
                    f"{companion} lies beside the output, belongs to an older {output.name}, and would not be written again: remove "
                    "it, or choose another --output-prefix."
                )
