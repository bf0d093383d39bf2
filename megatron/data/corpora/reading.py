"""The seam to the readers of files: what of `megatron.data.documents` corpora made of files use."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron.data.documents import read_texts
from megatron.data.inputs.compression import OPENERS, is_damage, open_decompressed
from megatron.errors import DataError, MissingRequirement

PACKAGES = {".zst": "zstandard", ".parquet": "pyarrow"}
REQUIREMENT = "requirements/requirements-preprocessing.txt"


def check_readable(names: Sequence[str]) -> None:
    """Raise MissingRequirement for a package that reading files of these names needs: before they are downloaded, not after."""
    for name in names:
        package = PACKAGES.get(Path(name).suffix)
        if package is not None and importlib.util.find_spec(package) is None:
            raise MissingRequirement(f'{name} needs the package "{package}": pip install -r {REQUIREMENT}')


def texts_of_files(files: Sequence[Path], key: str) -> Iterator[str]:
    """The text under `key` of every document. Raises DataError for a bad file or document."""
    return read_texts(files, (key,))


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, plain or compressed. Raises DataError when it is damaged or ends too early."""
    try:
        with open(path, "rb") as raw:
            yield from open_decompressed(raw, path.suffix, name=str(path)) if path.suffix in OPENERS else raw
    except Exception as error:
        if isinstance(error, OSError) or is_damage(error):
            raise DataError(f"{path} cannot be read or decompressed ({error}): download or copy it again.") from None
        raise
