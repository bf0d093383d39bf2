"""python_stdlib: the sources of the running Python's own standard library, one document a module.

Real code and real prose (docstrings) of known quality that is on every machine, so that a first run needs no download.
Left out, because they teach a small model little or differ between machines:

* tests, and whatever is installed into the library's tree (site-packages, caches, site customisation, build configuration);
* tables rather than text: the code pages of `encodings`, `pydoc_data` (one dict of escaped strings), `html/entities.py`;
* files that are empty or do not decode in the encoding they declare.

Documents are ordered by a hash of their path. In alphabetical order the validation split at the end would be xml, xmlrpc and
zipfile; in this one it is a sample of everything, and one module more or less in another Python moves no other.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from megatron.data.corpora.base import About, Corpus
from megatron.errors import DataError

SKIPPED_DIRECTORIES = frozenset(
    {
        *("test", "tests", "idle_test", "__pycache__"),
        *("site-packages", "dist-packages", "lib-dynload"),
        *("encodings", "pydoc_data", "__phello__"),
    }
)
SKIPPED_FILES = frozenset({"html/entities.py", "sitecustomize.py", "usercustomize.py"})
SKIPPED_PREFIXES = (
    "_sysconfigdata",
    "config-",
)  # how this Python was built, with the paths of the machine that built it
ORDER_SEED = "python_stdlib 1"


class PythonStandardLibrary(Corpus):
    """The modules below `library`, which is the running Python's standard library unless another is given."""

    name = "python_stdlib"
    about = About(
        "sources of the running Python's standard library, without its tests: about 10 MB", "no download", "PSF"
    )
    fits_memory = True

    def __init__(self, directory: Path, *, first_files: int | None = None, library: Path | None = None) -> None:
        super().__init__(directory)
        if first_files is not None:
            raise DataError(f"--files {first_files} cannot be: {self.name} is one whole, not a number of files.")
        self.library = library or Path(sysconfig.get_path("stdlib"))

    def documents(self) -> Iterator[str]:
        paths = self.paths()
        if not paths:
            raise DataError(
                f"{self.library} holds no Python sources, so there is no {self.name} corpus: "
                "use a Python whose standard library is installed as .py files."
            )
        for path in paths:
            text = _read_source(self.library / path)
            if text is not None:
                yield text

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{ORDER_SEED} {platform.python_version()}".encode())
        for path in self.paths():
            digest.update(f"\n{path} {(self.library / path).stat().st_size}".encode())
        return digest.hexdigest()

    def paths(self) -> list[PurePosixPath]:
        """The modules in document order, relative to the library."""
        return sorted(self._walk(), key=_order)

    def _walk(self) -> Iterator[PurePosixPath]:
        for directory, subdirectories, files in os.walk(self.library):
            subdirectories[:] = [name for name in subdirectories if not _is_skipped(name, SKIPPED_DIRECTORIES)]
            for name in files:
                path = PurePosixPath(Path(directory, name).relative_to(self.library).as_posix())
                if path.suffix == ".py" and not _is_skipped(name, ()) and str(path) not in SKIPPED_FILES:
                    yield path


def _is_skipped(name: str, names: frozenset[str] | tuple[str, ...]) -> bool:
    return name in names or name.startswith(SKIPPED_PREFIXES)


def _order(path: PurePosixPath) -> bytes:
    return hashlib.sha256(f"{ORDER_SEED} {path}".encode()).digest()


def _read_source(path: Path) -> str | None:
    """The text of a module in the encoding it declares; None when it is empty or does not decode."""
    try:
        with tokenize.open(path) as file:
            return file.read() or None
    except (SyntaxError, UnicodeDecodeError):  # SyntaxError: an unknown encoding is declared
        return None
