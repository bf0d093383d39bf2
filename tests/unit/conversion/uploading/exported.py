"""Directories as an export leaves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def write_model(directory: Path, files: dict[str, bytes] | None = None, **report: Any) -> Path:
    """A model with a report of its files; what `report` says replaces what a good one says."""
    directory.mkdir(parents=True)
    files = FILES if files is None else files
    facts = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    whole = {
        "equal": True,
        "files": facts,
        "architecture": "LlamaForCausalLM",
        "source": {"directory": "/secret/runs/global_step1000", "iteration": 1000, "parameters": 12345},
        "differences": {"largest of an output": 1.25e-6, "allowed": 1e-4},
        **report,
    }
    for name, data in {**files, "conversion_report.json": json.dumps(whole).encode()}.items():
        (directory / name).write_bytes(data)
    return directory
