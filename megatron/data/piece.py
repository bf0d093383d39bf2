"""What samples are made of: parts of documents, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """The `length` tokens from token `offset` on of document number `document` of the dataset at `prefix`."""

    prefix: Path
    document: int
    offset: int
    length: int
