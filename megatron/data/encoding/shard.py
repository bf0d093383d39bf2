"""Encoding one piece of the input into a shard: files of its own, written by whoever encodes it.

00000012.0.bin     tokens of the first output, as in a .bin
00000012.0.sizes   tokens of each document, int32
00000012.json      the note, written last: the shard is whole
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from megatron.atomic import atomic_file
from megatron.data.encoding.worker import Counts, Encoder
from megatron.data.inputs.formats import read_span
from megatron.data.inputs.pieces import Piece
from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Meter

BATCH_CHARACTERS = 1 << 18
LISTED = 20  # bad documents whose places are remembered

OnError: TypeAlias = Literal["fail", "skip"]
Report: TypeAlias = Callable[[Counts], None]


@dataclass(frozen=True)
class ShardNote:
    """What a finished shard holds: `tokens` by output, documents `by_span` of its piece, and its first bad documents."""

    counts: Counts
    tokens: tuple[int, ...]
    by_span: tuple[int, ...]
    bad: tuple[Bad, ...]


@dataclass(frozen=True)
class _Batch:
    documents: list[tuple[Any, ...]]
    spans: list[int]  # for each document the number of its span in the piece
    bad: list[Bad]
    consumed: int


class _Refused(Exception):
    """The first bad document, where none is allowed."""

    def __init__(self, bad: Bad) -> None:
        super().__init__(bad.reason)
        self.bad = bad


def bin_of(directory: Path, number: int, output: int) -> Path:
    """The tokens of a shard of the output number `output`."""
    return directory / f"{number:08d}.{output}.bin"


def sizes_of(directory: Path, number: int, output: int) -> Path:
    """The lengths of its documents."""
    return directory / f"{number:08d}.{output}.sizes"


def note_of(directory: Path, number: int) -> Path:
    """The note of a shard."""
    return directory / f"{number:08d}.json"


def write_shard(
    piece: Piece, encoder: Encoder, directory: Path, *, on_error: OnError, report: Report
) -> ShardNote | Bad:
    """Encode a piece into files in `directory`; the first bad document ends it, unless `on_error` is "skip".

    report: is told of progress, and may raise to end the work. Whatever ends it, no part of the shard is left.
    """
    outputs = range(len(encoder.outputs))
    counts, tokens, by_span, listed = Counts(), [0] * len(outputs), [0] * len(piece.spans), list[Bad]()
    try:
        with contextlib.ExitStack() as stack:
            bins = [stack.enter_context(atomic_file(bin_of(directory, piece.number, k))) for k in outputs]
            sizes = [stack.enter_context(atomic_file(sizes_of(directory, piece.number, k))) for k in outputs]
            for batch in _batches(piece, encoder.fields, on_error=on_error):
                encoded = encoder.encode(batch.documents)
                for k, (ids, lengths) in enumerate(zip(encoded.ids, encoded.sizes, strict=True)):
                    bins[k].write(ids.data)
                    sizes[k].write(lengths.astype("<i4", copy=False).data)
                    tokens[k] += len(ids)
                for document in encoded.kept:
                    by_span[batch.spans[document]] += 1
                listed += batch.bad[: LISTED - len(listed)]
                step = replace(encoded.counts, bad=len(batch.bad), consumed=batch.consumed)
                counts += step
                report(step)
    except _Refused as refused:
        return refused.bad
    note = ShardNote(counts, tuple(tokens), tuple(by_span), tuple(listed))
    with atomic_file(note_of(directory, piece.number)) as file:
        file.write(json.dumps(asdict(note)).encode("utf-8"))
    return note


def read_note(path: Path) -> ShardNote | None:
    """A shard's note; None when the shard is not finished."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    bad = tuple(Bad(**one) for one in values["bad"])
    return ShardNote(Counts(**values["counts"]), tuple(values["tokens"]), tuple(values["by_span"]), bad)


def _batches(piece: Piece, fields: Fields, *, on_error: OnError) -> Iterator[_Batch]:
    """The documents of a piece, some at a time. Raises _Refused at a bad one when `on_error` is "fail"."""
    documents, spans, bad, characters, told, before = list[tuple[Any, ...]](), list[int](), list[Bad](), 0, 0, 0
    for number, span in enumerate(piece.spans):
        meter = Meter()
        for document in read_span(span, fields, meter):
            if isinstance(document, Bad):
                if on_error == "fail":
                    raise _Refused(document)
                bad.append(document)
                characters += len(document.reason)
            else:
                documents.append(document)
                spans.append(number)
                characters += sum(map(len, document)) + 1
            if characters >= BATCH_CHARACTERS:
                yield _Batch(documents, spans, bad, before + meter.consumed - told)
                documents, spans, bad, characters, told = [], [], [], 0, before + meter.consumed
        before += span.size
    yield _Batch(documents, spans, bad, before - told)
