"""What lies in a directory of checkpoints that GPT-NeoX wrote: which steps, which files, of how many tensor-parallel ranks.

Pipeline layout (also of one stage): `layer_{layer}-model_{rank}-model_states.pt` for every layer with parameters, and besides
`mp_rank_{rank}_model_states.pt` with the state of the engine. Sequential layout: only the latter, with all weights of a rank. What DeepSpeed
wrote below `global_step{N}/` is named by the text file `latest`; the YAML files of the run are in a folder `configs` there or beside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron.errors import CheckpointError
from megatron.foreign import shortened

_LAYER = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_EXPERT = re.compile(r"layer_\d+[-_]expert_.*\.pt")
_STEP = re.compile(r"global_step(\d+)")


@dataclass(frozen=True)
class Layout:
    """directory: that of the step; iteration: -1 when its name does not say; ranks: of tensor parallelism; layers: numbers of those with files of
    their own, () in the sequential layout."""

    directory: Path
    iteration: int
    ranks: int
    layers: tuple[int, ...]

    @property
    def is_sequential(self) -> bool:
        """Whether each rank has one file with all its weights."""
        return not self.layers

    def files(self, layer: int) -> list[Path]:
        """The files with the parameters of a layer, by tensor rank."""
        if self.is_sequential:
            return self.rank_files()
        return [self.directory / f"layer_{layer:02d}-model_{rank:02d}-model_states.pt" for rank in range(self.ranks)]

    def rank_files(self) -> list[Path]:
        """The first files of `mp_rank_...`, as many as there are tensor ranks; in the pipeline layout those of the first stage, if there are any."""
        return [self.directory / f"mp_rank_{rank:02d}_model_states.pt" for rank in range(self.ranks)]


def find_layout(path: Path, iteration: int | None) -> Layout:
    """The checkpoint of a step (None: the one that `latest` names, else the last), in `path` or `path` itself.

    Raises CheckpointError when there is none, or files of it are missing.
    """
    directory = path if _has_weights(path) else _directory_of_step(path, iteration)
    step = _STEP.fullmatch(directory.resolve().name)
    number = int(step[1]) if step else -1
    if iteration is not None and step and number != iteration:
        raise CheckpointError(
            f"{path} is the checkpoint of step {number}, not of {iteration}: set load to the directory above, or no iteration"
        )
    names = [file.name for file in directory.iterdir()]
    if any(map(_EXPERT.fullmatch, names)):
        raise CheckpointError(f"{directory} holds experts of a mixture of experts of DeepSpeed, which cannot be read")
    layer_files = {(int(match[1]), int(match[2])) for match in map(_LAYER.fullmatch, names) if match}
    if layer_files:
        ranks = 1 + max(rank for _, rank in layer_files)
        layers = sorted({layer for layer, _ in layer_files})
        _check_all_there(directory, layer_files, layers, ranks)
        return Layout(directory, number, ranks, tuple(layers))
    found = sorted(int(match[1]) for match in map(_RANK.fullmatch, names) if match)
    missing = set(range(found[-1] + 1)) - set(found)
    if missing:
        raise CheckpointError(
            f"{directory} is incomplete: there is no {_listed(f'mp_rank_{rank:02d}_model_states.pt' for rank in missing)}"
        )
    return Layout(directory, number, len(found), ())


def saved_values(directory: Path) -> dict[str, Any]:
    """The settings in the YAML files that were saved with a step, with `_` in the names of keys, as they were written; {} where there are none.

    Raises CheckpointError when a file cannot be read.
    """
    folders = (directory / "configs", directory.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    values: dict[str, Any] = {}
    for file in sorted(folder.glob("*.y*ml")) if folder else []:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{file} cannot be read ({type(error).__name__}): correct it, or remove it"
            ) from error
        if isinstance(content, dict):
            values |= {str(key).replace("-", "_"): value for key, value in content.items()}
    return values


def _directory_of_step(path: Path, iteration: int | None) -> Path:
    steps = {number: folder for number, folder in _steps(path).items() if _has_weights(folder)} if path.is_dir() else {}
    if iteration is not None:
        if iteration not in steps:
            raise CheckpointError(f"{path} holds no checkpoint of GPT-NeoX of step {iteration}{_there(steps)}")
        return steps[iteration]
    latest = path / "latest"
    if latest.is_file():
        tag = latest.read_text(errors="replace").strip()
        if _has_weights(path / tag):
            return path / tag
        raise CheckpointError(
            f'{latest} names "{tag}", where there are no weights{_there(steps)}: set iteration, or correct the file'
        )
    if not steps:
        raise CheckpointError(f"{path} holds no checkpoint of GPT-NeoX")
    return steps[max(steps)]


def _steps(path: Path) -> dict[int, Path]:
    folders = ((_STEP.fullmatch(folder.name), folder) for folder in path.iterdir())
    return {int(match[1]): folder for match, folder in folders if match and folder.is_dir()}


def _has_weights(path: Path) -> bool:
    return path.is_dir() and any(_LAYER.fullmatch(file.name) or _RANK.fullmatch(file.name) for file in path.iterdir())


def _there(steps: Iterable[int]) -> str:
    return f" (there are {_listed(map(str, sorted(steps)))})" if steps else ""


def _check_all_there(directory: Path, files: set[tuple[int, int]], layers: list[int], ranks: int) -> None:
    missing = [(layer, rank) for layer in layers for rank in range(ranks) if (layer, rank) not in files]
    if missing:
        words = _listed(f"layer {layer} of rank {rank}" for layer, rank in missing)
        raise CheckpointError(
            f"{directory} is incomplete: of {ranks} tensor-parallel ranks there is no file of {words}; copy all files"
        )


def _listed(names: Iterable[str]) -> str:
    return shortened(list(names))
