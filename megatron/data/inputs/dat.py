"""lm_dataformat's DatArchive: texts back to back, before each its length in bytes as 16 decimal digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Document, plain_document

LENGTH_DIGITS = 16


def read_dat_stream(stream: IO[bytes], where: str, fields: Fields) -> Iterator[Document]:
    """The documents of an archive; they count from 1 in messages. Raises EOFError where it ends inside one."""
    number = 0
    while header := stream.read(LENGTH_DIGITS):
        number += 1
        place = f"document {number} of {where}"
        if not header.isdigit():
            yield Bad(place, f"begins with {header!r}, not with its length: the archive is damaged from there on.")
            return
        data = stream.read(int(header))
        if len(header) < LENGTH_DIGITS or len(data) < int(header):
            raise EOFError(f"the archive ends inside document {number}")
        try:
            yield plain_document(data.decode("utf-8"), fields, place)
        except UnicodeDecodeError as error:
            yield Bad(place, f"is not UTF-8 text ({error}): leave it out.")
