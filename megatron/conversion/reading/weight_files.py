"""The files of weights in a directory of Hugging Face transformers: which there are, what tensors they hold, and one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from megatron.checkpointing.errors import reason_of
from megatron.checkpointing.inspecting.safetensors_file import DTYPES
from megatron.checkpointing.names import dtype_name
from megatron.conversion.reading.pickled import check_is_there, read_pickled
from megatron.errors import CheckpointError
from megatron.foreign import shortened

Shape = tuple[int, ...]

_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_INDEX = ".index.json"


class WeightFiles(Protocol):
    """Tensors under the names they have in the files. shapes, dtypes ("float32"): of all of them; files: whence each comes."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...

    @property
    def dtypes(self) -> Mapping[str, str]: ...

    @property
    def files(self) -> Mapping[str, Path]: ...

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU, as it is stored. Raises CheckpointError when the file cannot be read."""
        ...


def open_weight_files(directory: Path, *, trusted: bool = False) -> WeightFiles:
    """The weights in a directory: safetensors where there are, else files of `torch.save`, as transformers chooses.

    trusted: of a pickled file build whatever it names. Raises CheckpointError when there are none, or when one is missing or damaged.
    """
    for name in (_SAFETENSORS, _SAFETENSORS + _INDEX, _PICKLED, _PICKLED + _INDEX):
        path = directory / name
        if not path.is_file():
            continue
        files: WeightFiles
        paths = _indexed_files(path) if name.endswith(_INDEX) else [path]
        files = SafetensorsFiles(paths) if name.startswith(_SAFETENSORS) else PickledFiles(paths, trusted=trusted)
        if name.endswith(_INDEX):
            _check_index(path, files)
        return files
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    raise CheckpointError(
        f"{directory} holds no weights of Hugging Face transformers ({_SAFETENSORS}, {_PICKLED}, or either with {_INDEX}); "
        f"it contains {shortened(names)}"
    )


class SafetensorsFiles:
    """Weights in safetensors. A file is mapped only while a tensor is in use, as its pages would count as memory until then."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        for path in paths:
            check_is_there(path)
            with _opened(path) as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                _add(dict.fromkeys(slices, path), self.files)
                self.shapes |= {name: tuple(each.get_shape()) for name, each in slices.items()}
                self.dtypes |= {name: _dtype(each.get_dtype()) for name, each in slices.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, mapped from its file."""
        path = self.files[name]
        with _opened(path) as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


class PickledFiles:
    """Weights in files of `torch.save`, which map their tensors, but for those of torch before 1.6: these are in memory from the start."""

    def __init__(self, paths: Iterable[Path], *, trusted: bool = False) -> None:
        self.files: dict[str, Path] = {}
        self._tensors: dict[str, Tensor] = {}
        for path in paths:
            content = read_pickled(path, trusted=trusted)
            if not isinstance(content, Mapping):
                raise CheckpointError(f"{path} holds no tensors by name, but a {type(content).__name__}")
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            _add(dict.fromkeys(tensors, path), self.files)
            self._tensors |= tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.dtypes = {name: dtype_name(tensor.dtype) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, mapped from its file where that is possible."""
        return self._tensors[name].detach()


def _add(found: Mapping[str, Path], files: dict[str, Path]) -> None:
    twice = [name for name in found if name in files]
    if twice:
        raise CheckpointError(
            f"{twice[0]} is both in {files[twice[0]]} and in {found[twice[0]]}: which of them counts is not to be known"
        )
    files |= found


def _indexed_files(index: Path) -> list[Path]:
    """The files that an index names, all of which must be there."""
    paths = [index.parent / name for name in sorted(set(_weight_map(index).values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{index} names {len(paths)} files, of which {len(missing)} {'is' if len(missing) == 1 else 'are'} missing: "
            f"{shortened(missing)}; fetch all files of the model"
        )
    return paths


def _check_index(index: Path, files: WeightFiles) -> None:
    missing = [name for name, file in _weight_map(index).items() if files.files.get(name) != index.parent / file]
    if missing:
        raise CheckpointError(
            f"{index} and its files do not belong together: {shortened(missing)} not where it says; fetch the model again"
        )


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{index} has no "weight_map", by which an index says where each tensor is')
    return {str(name): str(file) for name, file in weight_map.items()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError when there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)})") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def _dtype(name: str) -> str:
    """torch's name of a dtype of safetensors."""
    return next((ours for ours, theirs in DTYPES.items() if theirs == name), name.lower())


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or incomplete ({path.stat().st_size} bytes): fetch it again ({reason_of(error)})"
        ) from error
