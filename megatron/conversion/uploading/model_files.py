"""The files of an exported model, checked before anybody else can see them: complete, as they were written, and proven equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.conversion.export.place import REPORT
from megatron.conversion.hub.files import CONFIG, is_weight_file, weight_files
from megatron.errors import CheckpointError

_REMEDY = "export it with convert_neox_to_hf.py, or add --unproven"
_UNFINISHED = (".partial", ".tmp", ".incomplete", ".lock")


@dataclass(frozen=True)
class ModelFiles:
    """What would be uploaded. sizes: bytes by name; report: of the conversion, empty without one; left_out: hidden files, which stay here."""

    directory: Path
    sizes: Mapping[str, int]
    report: Mapping[str, Any]
    left_out: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.sizes


def model_files(directory: Path, *, unproven: bool) -> ModelFiles:
    """The files in `directory`; reads all that the report lists, for their hashes.

    Raises CheckpointError when it is no complete model, when a file is not as the conversion wrote it, and, but with `unproven`, when the
    conversion did not prove that the model is equal to the original.
    """
    sizes, left_out = _listed(directory)
    report = _read_report(directory) if REPORT in sizes else {}
    if report and not unproven:
        _check_proof(directory, report)
    if CONFIG not in sizes:
        raise CheckpointError(f"{directory} has no {CONFIG}: give a directory that convert_neox_to_hf.py has written")
    weights = weight_files(sizes, directory, where=str(directory))
    if not report and not unproven:
        raise CheckpointError(
            f"{directory} has no {REPORT}, so nothing proves that the model is the original: {_REMEDY}"
        )
    if report:
        _check_files(directory, sizes, report)
    strays = [name for name in sizes if is_weight_file(name) and name not in {*weights, *_indices(weights)}]
    if strays:
        raise CheckpointError(
            f"{directory} holds {strays[0]}, which does not belong to the weights in {weights[0]}: remove it, or export anew"
        )
    return ModelFiles(directory, sizes, report, left_out)


def _listed(directory: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory: give one that convert_neox_to_hf.py has written")
    paths = sorted(directory.iterdir())
    for path in paths:
        if path.name.endswith(_UNFINISHED):
            raise CheckpointError(f"{path} is a file that was being written: let the export end, or repeat it")
        if path.is_dir() and not path.name.startswith("."):
            raise CheckpointError(f"{path} is a directory, which a model does not have: move it elsewhere")
    hidden = tuple(path.name for path in paths if path.name.startswith("."))
    return {path.name: path.stat().st_size for path in paths if path.name not in hidden}, hidden


def _read_report(directory: Path) -> dict[str, Any]:
    path = directory / REPORT
    try:
        report = json.loads(path.read_bytes())
    except ValueError:
        report = None
    if not isinstance(report, dict) or not isinstance(report.get("files"), dict):
        raise CheckpointError(f"{path} is no report of a conversion: export anew")
    return report


def _check_proof(directory: Path, report: Mapping[str, Any]) -> None:
    if report.get("equal") is not True:
        problem = report.get("problem") or "the exported model does not compute the same as the original"
        raise CheckpointError(f"{directory / REPORT} says: {problem}; {_REMEDY}")


def _check_files(directory: Path, sizes: Mapping[str, int], report: Mapping[str, Any]) -> None:
    written = report["files"]
    for name, facts in written.items():
        if name not in sizes:
            raise CheckpointError(f"{directory} lacks {name}, which the conversion wrote: export anew")
        if sizes[name] != facts.get("bytes"):
            raise CheckpointError(
                f"{directory / name} has {sizes[name]:,} bytes, the conversion wrote {facts.get('bytes'):,}: export anew"
            )
        if _sha256(directory / name) != facts.get("sha256"):
            raise CheckpointError(f"{directory / name} has changed since the conversion wrote it: export anew")
    added = [name for name in sizes if is_weight_file(name) and name not in written]
    if added:
        raise CheckpointError(f"{directory / added[0]} was not written by the conversion: remove it, or export anew")


def _indices(weights: list[str]) -> set[str]:
    """Names that an index of these weights may have."""
    suffix = Path(weights[0]).suffix
    return {f"model{suffix}.index.json", f"pytorch_model{suffix}.index.json"}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
