"""What lies in a directory that was given as one of checkpoints and holds none of ours, in words: mostly one of another program, or a parent."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL_PREFIX = "hf:"
"""Before a directory or a name of the Hub, where a model of Hugging Face transformers is meant."""

_SHOWN = 12
_LOOKED_AT = 256
_MANIFEST = "manifest.json"
_CHECKPOINT = re.compile(r"global_step\d+")
_MEGATRON = re.compile(r"iter_\d{7}")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(@.+)?")
_META = re.compile(r"consolidated\.\d+\.pth")


class Program(enum.Enum):
    """Another program whose models are recognised. The first three are read here, too."""

    HUGGING_FACE = "Hugging Face transformers"
    NEOX = "GPT-NeoX"
    META = "Llama as Meta publishes it"
    PEFT = "Hugging Face PEFT"
    MEGATRON = "Megatron-LM"

    @property
    def is_read(self) -> bool:
        """Whether a run can begin from its models."""
        return self in (Program.HUGGING_FACE, Program.NEOX, Program.META)


@dataclass(frozen=True)
class Foreign:
    """What of another program lies in a directory, and by which words it is described ("it is ...")."""

    program: Program
    words: str


def what_is_there(directory: Path) -> str:
    """The end of a sentence about `directory`: what it is, or what it holds."""
    if not directory.exists():
        return f"the directory does not exist{_beside(directory)}"
    if not directory.is_dir():
        return "it is a file, not a directory"
    found = recognise(directory)
    if found:
        # Where this is said, checkpoints of ours are wanted: as `load` of a run, what is read here is no mistake.
        end = "can be converted (tools/ckpts/convert_hf_to_neox.py)" if found.program.is_read else "cannot be loaded"
        return f"{found.words}, which {end}"
    below = directories_of_checkpoints(directory)
    if below:
        return f"there are checkpoints further down; give {below[0]}{_others(below[1:])}"
    # What begins with a dot is ours or the system's: locks, things on their way in or out.
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    return f"it contains {shortened(names)}" if names else "the directory is empty"


def is_free(directory: Path) -> bool:
    """Whether a run may save its first checkpoint here without anybody having meant something else: no file, no checkpoint of others."""
    return not directory.exists() or (directory.is_dir() and recognise(directory) is None)


def program_of(directory: Path) -> Program | None:
    """The other program whose model or checkpoints lie in `directory`; None when none is recognised."""
    found = recognise(directory)
    return found.program if found else None


def recognise(directory: Path) -> Foreign | None:
    """What of another program lies in `directory`; None when nothing is recognised."""
    if not directory.is_dir():
        return None
    names = sorted(path.name for path in directory.iterdir())
    weights = [
        name for name in names if name.endswith((".safetensors", ".safetensors.index.json")) or _is_torch_bin(name)
    ]
    if weights and "config.json" in names:
        words = f"it is a model of Hugging Face transformers (config.json, {weights[0]})"
        return Foreign(Program.HUGGING_FACE, words)
    if "adapter_config.json" in names:
        return Foreign(Program.PEFT, "it is an adapter of Hugging Face PEFT (adapter_config.json)")
    meta = [name for name in names if _META.fullmatch(name)]
    if meta and "params.json" in names:
        return Foreign(Program.META, f"it is a Llama as Meta publishes it (params.json, {meta[0]})")
    if "latest_checkpointed_iteration.txt" in names or any(_MEGATRON.fullmatch(name) for name in names):
        return Foreign(Program.MEGATRON, "it holds checkpoints of Megatron-LM")
    states = next((path for path in (directory, *_folders(directory)) if any(path.glob("*_states.pt"))), None)
    if states is not None:
        where = "" if states == directory else f" ({states.name})"
        return Foreign(Program.NEOX, f"it holds a checkpoint of GPT-NeoX or DeepSpeed{where}")
    return None


def program_of_load(load: str) -> Program | None:
    """The other program from whose model a run with this `load` would begin; None where it loads checkpoints of ours, or nothing that is known.

    A directory with a checkpoint of ours is ours, whatever else lies there, as runs may save beside what they began from; unless `latest`
    names a step of GPT-NeoX, which has trained there since.
    """
    if load.startswith(MODEL_PREFIX):
        return Program.HUGGING_FACE
    directory = Path(load)
    if "://" in load or not directory.is_dir():
        return None
    if holds_ours(directory) and not _latest_is_of_neox(directory):
        return None
    program = program_of(directory)
    return program if program is not None and program.is_read else None


def holds_ours(directory: Path) -> bool:
    """Whether `directory` is a complete checkpoint of ours, or one lies in it."""
    return (directory / _MANIFEST).exists() or any(directory.glob(f"global_step*/{_MANIFEST}"))


def is_step_of_neox(checkpoint: Path) -> bool:
    """Whether a folder is what GPT-NeoX saved of one step."""
    return not (checkpoint / _MANIFEST).exists() and any(
        path.name.endswith("_states.pt") for path in checkpoint.iterdir()
    )


def may_be_on_the_hub(load: str) -> bool:
    """Whether what stands behind `hf:` can be the name of a model of the Hub, rather than only a path."""
    return _HUB_NAME.fullmatch(load.removeprefix(MODEL_PREFIX)) is not None


def directories_of_checkpoints(directory: Path) -> list[Path]:
    """The folders in `directory` that hold checkpoints of ours, in the order of their names; where none does, the folders in those."""
    folders = list(_folders(directory)) if directory.is_dir() else []
    return _with_checkpoints(folders) or _with_checkpoints(inner for folder in folders for inner in _folders(folder))


def shortened(names: list[str]) -> str:
    """Some names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _latest_is_of_neox(directory: Path) -> bool:
    try:
        return is_step_of_neox(directory / (directory / "latest").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False


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


def _beside(directory: Path) -> str:
    """Where checkpoints lie next to a directory that is not there, as its name may be misspelt."""
    try:
        found = _with_checkpoints(_folders(directory.parent)) if directory.parent.is_dir() else []
    except OSError:
        found = []
    return f", but there are checkpoints in {shortened([str(folder) for folder in found])}" if found else ""


def _others(folders: list[Path]) -> str:
    return f" (or {shortened([str(folder) for folder in folders])})" if folders else ""


def _is_torch_bin(name: str) -> bool:
    return name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json"))
