"""Inputs as pieces of work of about equal size: spans of large files, and many small files together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from megatron.data.inputs.fingerprint import InputFile
from megatron.data.inputs.formats import cut, read_span
from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Meter, Span

SMALLEST_PIECE = 1 << 20
LARGEST_PIECE = 1 << 26
PIECES_A_WORKER = 8  # enough that workers that finish early do not wait long for the last
MOST_PIECES = 10_000  # each costs a few small files on disk
SAMPLED_PIECES = 16
SAMPLED_DOCUMENTS = 64
SAMPLED_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Consecutive spans which one worker encodes into one shard; `number` counts from 0."""

    number: int
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(span.size for span in self.spans)


def choose_piece_bytes(total: int, workers: int) -> int:
    """How large pieces should be for `total` bytes of input."""
    even = min(max(total // (workers * PIECES_A_WORKER), SMALLEST_PIECE), LARGEST_PIECE)
    return max(even, total // MOST_PIECES)


def cut_pieces(inputs: Iterable[InputFile], piece_bytes: int) -> Iterator[Piece]:
    """The pieces of all inputs in order; every one but the last has at least `piece_bytes`, or is a file's last span."""
    number, pending, size = 0, list[Span](), 0
    for file in inputs:
        for span in cut(file.path, file.size, piece_bytes):
            pending.append(span)
            size += span.size
            if size >= piece_bytes:
                yield Piece(number, tuple(pending))
                number, pending, size = number + 1, [], 0
    if pending:
        yield Piece(number, tuple(pending))


def sample_texts(pieces: Sequence[Piece], fields: Fields) -> list[str]:
    """Some texts from all over the inputs, always the same ones."""
    step = max(1, len(pieces) // SAMPLED_PIECES)
    texts = list[str]()
    for piece in pieces[::step][:SAMPLED_PIECES]:
        characters = 0
        for document in islice(read_span(piece.spans[0], fields, Meter()), SAMPLED_DOCUMENTS):
            if not isinstance(document, Bad):
                texts += document
                characters += sum(map(len, document))
            if characters > SAMPLED_CHARACTERS:
                break
    return texts
