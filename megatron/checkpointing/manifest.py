"""The list of a checkpoint's files with their sizes and hashes: written last, and the proof that the checkpoint is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from megatron.checkpointing.errors import DamagedCheckpoint, reason_of
from megatron.checkpointing.files import FileFacts, sha256_of, sha256_of_file, to_json, write_durably
from megatron.foreign import is_step_of_neox

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
TENSOR_SUFFIX = ".distcp"

Verification = Literal["fast", "full"]


def write_manifest(checkpoint: Path, files: FileFacts) -> None:
    """Write the manifest of a checkpoint whose other files are all on the disk."""
    write_durably(checkpoint / MANIFEST, manifest_content(files))


def manifest_content(files: FileFacts) -> bytes:
    """The content of the manifest of a checkpoint with these files."""
    return to_json({"format": MANIFEST_FORMAT, "files": dict(sorted(files.items()))})


def file_facts(content: bytes) -> dict[str, Any]:
    """Size and SHA-256 of a file with this content."""
    return {"size": len(content), "sha256": sha256_of(content)}


def check_files(checkpoint: Path, verification: Verification = "fast") -> None:
    """Check that every file is there and has its size; hash the small ones ("fast") or all of them ("full").

    Raises DamagedCheckpoint naming the first file that is not as it was written.
    """
    for name, facts in read_manifest(checkpoint):
        check_file(checkpoint / name, facts, hashed=verification == "full" or not is_hashed_when_full(name))


def is_hashed_when_full(name: str) -> bool:
    """Whether a file is so large that the fast check leaves it at the size."""
    return name.endswith(TENSOR_SUFFIX)


def check_file(path: Path, facts: dict[str, Any], *, hashed: bool) -> None:
    """Check one file against what the manifest says of it: its size, and with `hashed` its SHA-256. Raises DamagedCheckpoint."""
    try:
        size = path.stat().st_size
        if size != facts["size"]:
            raise DamagedCheckpoint(f"{path} has {size} bytes and was written with {facts['size']}")
        if hashed and sha256_of_file(path) != facts["sha256"]:
            raise DamagedCheckpoint(f"{path} has changed since it was written (its SHA-256 differs)")
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} is missing") from None
    except OSError as error:
        raise DamagedCheckpoint(f"{path} cannot be read ({reason_of(error)})") from error


def read_manifest(checkpoint: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of a checkpoint with their sizes and hashes. Raises DamagedCheckpoint when it does not say."""
    path = checkpoint / MANIFEST
    try:
        files = json.loads(path.read_bytes())["files"]
        return iter(
            [(name, {"size": int(facts["size"]), "sha256": str(facts["sha256"])}) for name, facts in files.items()]
        )
    except FileNotFoundError:
        raise DamagedCheckpoint(
            f"{checkpoint} is not a complete checkpoint: it has no {MANIFEST}{_foreign(checkpoint)}"
        ) from None
    except OSError as error:
        raise DamagedCheckpoint(f"{path} cannot be read ({reason_of(error)})") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedCheckpoint(f"{path} is not readable JSON of the expected form") from None


def _foreign(checkpoint: Path) -> str:
    if checkpoint.is_dir() and is_step_of_neox(checkpoint):
        return " (its files are those of GPT-NeoX or DeepSpeed; to load them, give this directory itself)"
    return ""
