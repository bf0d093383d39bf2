"""What an audit found, as values for JSON; steps count from 1 in it, as in the log of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from megatron.data.audit.search import DocumentRead
from megatron.data.audit.segment import AuditedSegment, SampleRead
from megatron.data.ledger.changes import changes_of_order
from megatron.data.piece import Piece

Decode = Callable[[Sequence[int]], str]


def facts_of_sample(audited: AuditedSegment, read: SampleRead, decode: Decode | None) -> dict[str, Any]:
    """A sample of a step: who read it, and the documents in it. decode: makes text of tokens; None leaves it out."""
    return {
        **_place(audited, read.data_rank, read.micro_batch, read.sample),
        "documents": [facts_of_piece(audited, piece, decode) for piece in read.pieces],
    }


def facts_of_piece(audited: AuditedSegment, piece: Piece, decode: Decode | None) -> dict[str, Any]:
    """A part of a document."""
    dataset = next(source.dataset for source in audited.sources if source.dataset.prefix == piece.prefix)
    facts = {
        **facts_of_document(audited, piece),
        "tokens": [piece.offset, piece.offset + piece.length],
        "of": int(dataset.sizes[piece.document]),
    }
    if decode is not None:
        facts["text"] = decode(dataset.get(piece.document, piece.offset, piece.length).tolist())
    return facts


def facts_of_document(audited: AuditedSegment, piece: Piece) -> dict[str, Any]:
    """Where a document is, and where it came from, if its dataset says so."""
    origins = audited.origins[piece.prefix]
    origin = None if origins is None else origins.of(piece.document)
    return {
        "dataset": str(piece.prefix),
        "document": piece.document,
        "file": origin and origin.path,
        "number": origin and origin.number,
    }


def facts_of_reads(
    found: Iterable[tuple[AuditedSegment, Sequence[DocumentRead]]], *, steps_made: int
) -> list[dict[str, Any]]:
    """The reads of one document, segment by segment.

    "reading" counts how many times the document has come: as often as there are epochs, while each time may be divided among samples.
    """
    orders, readings, facts = list[AuditedSegment](), dict[tuple[int, ...], int](), list[dict[str, Any]]()
    for audited, reads in found:
        same = (number for number, other in enumerate(orders) if not changes_of_order(other.segment, audited.segment))
        order = next(same, len(orders))
        if order == len(orders):
            orders.append(audited)
        facts += [
            {
                "step": read.step + 1,
                "done": read.step < steps_made,
                **_place(audited, read.data_rank, read.micro_batch, read.sample),
                "tokens": [read.piece.offset, read.piece.offset + read.piece.length],
                "reading": readings.setdefault((order, read.lap, read.source, read.position), len(readings) + 1),
            }
            for read in reads
        ]
    return facts


def _place(audited: AuditedSegment, data_rank: int, micro_batch: int, sample: int) -> dict[str, Any]:
    ranks = audited.ranks_of(data_rank)
    return {"data_rank": data_rank, "ranks": ranks, "micro_batch": micro_batch, "sample": sample}
