"""What lies in a directory that was given as one of checkpoints and holds none of ours, in words: mostly one of another program, or a parent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_SHOWN = 12
_LOOKED_AT = 256
_CHECKPOINT = re.compile(r"global_step\d+")
_MEGATRON = re.compile(r"iter_\d{7}")


def what_is_there(directory: Path) -> str:
    """The end of a sentence about `directory`: what it is, or what it holds."""
    if not directory.exists():
        return "the directory does not exist"
    if not directory.is_dir():
        return "it is a file, not a directory"
    kind = foreign_kind(directory)
    if kind:
        return f"{kind}, which cannot be loaded without being converted"
    below = directories_of_checkpoints(directory)
    if below:
        return f"there are checkpoints further down; give {below[0]}{_others(below[1:])}"
    # What begins with a dot is ours or the system's: locks, things on their way in or out.
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    return f"it contains {shortened(names)}" if names else "the directory is empty"


def is_free(directory: Path) -> bool:
    """Whether a run may save its first checkpoint here without anybody having meant something else: no file, no checkpoint of others."""
    return not directory.exists() or (directory.is_dir() and foreign_kind(directory) is None)


def foreign_kind(directory: Path) -> str | None:
    """What checkpoint of another program lies in `directory`; None when none is recognised."""
    if not directory.is_dir():
        return None
    names = sorted(path.name for path in directory.iterdir())
    weights = [
        name for name in names if name.endswith((".safetensors", ".safetensors.index.json")) or _is_torch_bin(name)
    ]
    if weights and "config.json" in names:
        return f"it is a model of Hugging Face transformers (config.json, {weights[0]})"
    if "adapter_config.json" in names:
        return "it is an adapter of Hugging Face PEFT (adapter_config.json)"
    if "latest_checkpointed_iteration.txt" in names or any(_MEGATRON.fullmatch(name) for name in names):
        return "it holds checkpoints of Megatron-LM"
    states = next((path for path in (directory, *_folders(directory)) if any(path.glob("*_states.pt"))), None)
    if states is not None:
        where = "" if states == directory else f" ({states.name})"
        return f"it holds a checkpoint of GPT-NeoX or DeepSpeed{where}"
    return None


def directories_of_checkpoints(directory: Path) -> list[Path]:
    """The folders in `directory` that hold checkpoints of ours, in the order of their names; where none does, the folders in those."""
    folders = list(_folders(directory)) if directory.is_dir() else []
    return _with_checkpoints(folders) or _with_checkpoints(inner for folder in folders for inner in _folders(folder))


def shortened(names: list[str]) -> str:
    """Some names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _folders(directory: Path) -> Iterator[Path]:
    """The readable folders in a directory; only the first ones of very many, as this is for a message."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name)[:_LOOKED_AT]:
        try:
            if path.is_dir() and not path.name.startswith("."):
                next(iter(path.iterdir()), None)
                yield path
        except OSError:
            continue


def _with_checkpoints(folders: Iterable[Path]) -> list[Path]:
    return [
        folder
        for folder in folders
        if any(_CHECKPOINT.fullmatch(path.name) and path.is_dir() for path in folder.iterdir())
    ]


def _others(folders: list[Path]) -> str:
    return f" (or {shortened([str(folder) for folder in folders])})" if folders else ""


def _is_torch_bin(name: str) -> bool:
    return name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json"))
