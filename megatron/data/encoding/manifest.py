"""What an unfinished encoding was started with, so that it is continued only with the same inputs and the same recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.atomic import atomic_file
from megatron.data.encoding.worker import Encoder
from megatron.data.inputs.fingerprint import InputFile, differences
from megatron.errors import DataError

FORMAT = 2  # raised when the same inputs and recipe give other shards than before
SHOWN_CHANGES = 5


@dataclass(frozen=True)
class Manifest:
    """recipe: what the output depends on besides the inputs, by the name a user knows it by; piece_bytes: how the inputs are cut;
    directory: the name of the directory that the shards are in."""

    recipe: dict[str, Any]
    piece_bytes: int
    directory: str
    inputs: tuple[InputFile, ...]


def describe_recipe(encoder: Encoder) -> dict[str, Any]:
    """The recipe as JSON values; the tokenizer by its fingerprint, wherever its file lies."""
    recipe, tokenizer = encoder.recipe, encoder.tokenizer
    return {
        "format": FORMAT,
        "--tokenizer-type": tokenizer.name,
        "the tokenizer's fingerprint": tokenizer.fingerprint(),
        "the end-of-document token": tokenizer.eod if recipe.append_eod else None,
        "--jsonl-keys": list(recipe.keys),
        "--append-eod": recipe.append_eod,
        "--ftfy": recipe.fix_text,
        **encoder.options(),
    }


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(asdict(manifest)).encode("utf-8"))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of an unfinished encoding; None when there is none that this version can read."""
    try:
        values = json.loads(path.read_bytes())
        return Manifest(**values | {"inputs": tuple(InputFile(**one) for one in values["inputs"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def check_unchanged(before: Manifest, *, recipe: dict[str, Any], inputs: Sequence[InputFile]) -> None:
    """Raise DataError, which says what has changed, unless an encoding begun as `before` can be continued."""
    changes = [
        f"{name} was {before.recipe.get(name)} and is {value}"
        for name, value in recipe.items()
        if before.recipe.get(name) != value
    ]
    changes += differences(before.inputs, inputs)
    if changes:
        more = [f"and {len(changes) - SHOWN_CHANGES:,} more"] if len(changes) > SHOWN_CHANGES else []
        listed = "; ".join(changes[:SHOWN_CHANGES] + more)
        raise DataError(
            f"--resume cannot continue, because the output would be of two kinds: {listed}. "
            "Put it back as it was, or start anew without --resume."
        )
