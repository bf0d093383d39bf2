"""What is kept of a conversion, as `conversion_report.json` beside the model: where it is from, what was proven, and a hash of each file."""

from __future__ import annotations

import hashlib
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from megatron.checkpointing.files import to_json, write_durably
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.saving.source_version import source_version
from megatron.conversion.export.place import REPORT
from megatron.conversion.mapping.architecture import Architecture, config_keys
from megatron.conversion.proving.proof import Proof

_KIBIBYTE = 1024


@dataclass(frozen=True)
class Conversion:
    """What was converted, and into what. family, architecture: names in the menu and of the class of transformers; dtype: of the files;
    size: bytes of the values; seconds: of writing and of the proof; remarks: beside those of the proof; earlier: whether
    another model was there before, which only one that is equal replaces."""

    source: Mapping[str, Any]
    settings: Architecture
    family: str
    architecture: str
    dtype: str
    size: int
    seconds: tuple[float, float]
    proof: Proof
    remarks: tuple[str, ...] = ()
    earlier: bool = False

    @property
    def equal(self) -> bool:
        """Whether it was proven to compute the same."""
        return self.proof.equal

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """What a reader should know, none of it an error."""
        return (*self.remarks, *self.proof.remarks)


def source_facts(
    description: str, directory: Path, iteration: int | None, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """What the report says of the weights' origin."""
    weights = [torch.Size(shape).numel() for name, shape in shapes.items() if is_weight(name)]
    facts = {
        "directory": str(directory),
        "iteration": iteration,
        "description": description,
        "tensors": len(weights),
        "parameters": sum(weights),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def write_report(directory: Path, conversion: Conversion) -> None:
    """Write the report of the files in `directory` beside them."""
    write_durably(directory / REPORT, to_json(report_content(conversion, file_facts(directory))))


def report_content(conversion: Conversion, files: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the report. files: as `file_facts` gives them."""
    proof = conversion.proof
    return {
        "equal": conversion.equal,
        "problem": proof.problem,
        "architecture": conversion.architecture,
        "family": conversion.family,
        "dtype": conversion.dtype,
        "source": dict(conversion.source),
        "settings": config_keys(conversion.settings),
        "differences": differences(proof),
        "prompts": [{**asdict(prompt), "equal": prompt.equal} for prompt in proof.prompts],
        "remarks": list(conversion.all_remarks),
        "files": dict(files),
        "versions": versions(proof),
        "seconds": {"writing": round(conversion.seconds[0], 2), "proof": round(conversion.seconds[1], 2)},
        "peak_memory_bytes": peak_memory(),
    }


def differences(proof: Proof) -> dict[str, float]:
    """The largest differences of all prompts, and what is allowed; empty where nothing could be compared."""
    if not proof.prompts:
        return {}
    worst = max(proof.prompts, key=lambda prompt: prompt.difference / prompt.tolerance)
    likelihoods = (abs(ours - theirs) for ours, theirs in (prompt.log_likelihoods for prompt in proof.prompts))
    found = {
        "largest of an output": worst.difference,
        "allowed": worst.tolerance,
        "largest of a log-likelihood": max(likelihoods),
    }
    return found if proof.rounding is None else {**found, "by rounding the weights": proof.rounding}


def file_facts(directory: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of the files of a directory, by name, with that of a folder before it."""
    facts = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            facts[str(path.relative_to(directory))] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    return facts


def versions(proof: Proof) -> dict[str, Any]:
    """Of what computed both sides."""
    source = source_version()
    commit = "" if source is None else source["commit"]
    return {"torch": str(torch.__version__), "transformers": proof.transformers, "commit": commit}


def peak_memory() -> int:
    """The most bytes of memory that this process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIBIBYTE
