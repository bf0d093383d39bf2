"""Archives of many files: .tar (read as a stream, so also compressed) and .zip. Members are read as files of their names are.

A member of no known format is a document of plain text, as lm_dataformat reads `.tar.gz` and `.zip`; an archive may hold archives.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, TypeAlias

from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import DamagedFile, Document

ReadMember: TypeAlias = Callable[[IO[bytes], str, str, Fields], Iterator[Document]]
"""(contents, name, place for messages, fields) -> documents."""


def read_tar_stream(stream: IO[bytes], where: str, fields: Fields, *, read_member: ReadMember) -> Iterator[Document]:
    """The documents of all members, in the archive's order. Raises DamagedFile."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isfile() and (contents := archive.extractfile(member)) is not None:
                    yield from read_member(contents, member.name, f"{where}({member.name})", fields)
                archive.members.clear()  # type: ignore[attr-defined]  # else the list of members grows with the archive
    except tarfile.TarError as error:
        raise DamagedFile(f"not a whole tar archive: {error}") from None


def read_zip_stream(stream: IO[bytes], where: str, fields: Fields, *, read_member: ReadMember) -> Iterator[Document]:
    """The documents of all members, in the archive's order; the stream must be able to seek. Raises DamagedFile."""
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    with archive.open(member) as contents:
                        yield from read_member(contents, member.filename, f"{where}({member.filename})", fields)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # the last: it is encrypted
        raise DamagedFile(f"not a zip archive that can be read: {error}") from None
