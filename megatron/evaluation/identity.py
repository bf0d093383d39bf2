"""Which model was measured, so that whoever reads the results can tell it from every other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron.checkpointing.files import sha256_of_file
from megatron.checkpointing.loading.load import LoadedCheckpoint
from megatron.checkpointing.manifest import MANIFEST
from megatron.conversion.legacy.layout import find_layout
from megatron.errors import NeoXError
from megatron.foreign import MODEL_PREFIX, Program, program_of_load
from megatron.neox_arguments import NeoXArgs

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pth", "config.json", "params.json")
"""What models of other programs consist of."""


def identify(args: NeoXArgs, checkpoint: LoadedCheckpoint | None) -> dict[str, Any]:
    """What `args.load` was when it was loaded. checkpoint: None for a model of another program.

    The manifest of a checkpoint holds the SHA-256 of all its files, so its own stands for all of them. Of a model of the Hub the commit
    does; the files of any other are read for it. Where that fails, `error` says so: what was measured is not lost for it.
    """
    try:
        return _identify(args, checkpoint)
    except (OSError, NeoXError) as error:
        return {"load": args.load, "error": str(error)}


def _identify(args: NeoXArgs, checkpoint: LoadedCheckpoint | None) -> dict[str, Any]:
    assert args.load is not None
    if checkpoint is not None:
        manifest = hashlib.sha256((checkpoint.path / MANIFEST).read_bytes()).hexdigest()
        return {
            "load": args.load,
            "checkpoint": str(checkpoint.path),
            "iteration": checkpoint.iteration,
            "manifest_sha256": manifest,
        }
    program = program_of_load(args.load)
    about = {"load": args.load, "program": program.value if program else None}
    if program is Program.NEOX:
        layout = find_layout(Path(args.load), args.iteration)
        return {**about, "iteration": layout.iteration, "sha256": _hashes(layout.directory.glob("*model_states.pt"))}
    directory = _directory(args.load)
    if directory.parent.name == "snapshots":  # in the cache of the Hub, where a snapshot is called by its commit
        return {**about, "commit": directory.name}
    return {**about, "sha256": _hashes(path for pattern in WEIGHTS for path in directory.glob(pattern))}


def _directory(load: str) -> Path:
    if not load.startswith(MODEL_PREFIX):
        return Path(load)
    from megatron.conversion.hub.directory import model_directory  # a slow import, which most runs do without

    return model_directory(load)


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    return {path.name: sha256_of_file(path) for path in sorted(files)}
