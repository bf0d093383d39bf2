"""What an audit found, as lines to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from megatron.text import ranks as ranks_in_words
from megatron.text import table


def lines_of_step(samples: Sequence[Mapping[str, Any]], *, characters: int) -> Iterator[str]:
    """The documents of a step, rank by rank and micro-batch by micro-batch; of each text at most so many characters, 0 for none."""
    for (_, ranks, micro_batch), group in groupby(
        samples, key=lambda one: (one["data_rank"], one["ranks"], one["micro_batch"])
    ):
        yield f"{ranks_in_words(ranks)}, micro-batch {micro_batch}"
        for sample in group:
            yield f"  sample {sample['sample']}"
            for document in sample["documents"]:
                yield f"    {_document(document)}, tokens {_span(document)} of {document['of']}"
                if characters:
                    yield f"      {_quoted(document['text'], characters)}"


def lines_of_document(document: Mapping[str, Any], reads: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The steps that read a document."""
    yield _document(document)
    if not reads:
        yield "no step reads it"
        return
    header = ("step", "", "reading", "ranks", "micro-batch", "sample", "tokens")
    rows = [
        (
            str(read["step"]),
            "done" if read["done"] else "to come",
            str(read["reading"]),
            ", ".join(map(str, read["ranks"])),
            str(read["micro_batch"]),
            str(read["sample"]),
            _span(read),
        )
        for read in reads
    ]
    yield from table([header, *rows], right=(0, 2, 4, 5))


def _document(document: Mapping[str, Any]) -> str:
    came = (
        f"{document['file']}, its document {document['number']}"
        if document["file"]
        else "it does not say from which file"
    )
    return f"document {document['document']} of {document['dataset']} ({came})"


def _span(facts: Mapping[str, Any]) -> str:
    first, end = facts["tokens"]
    return f"{first} to {end - 1}"


def _quoted(text: str, characters: int) -> str:
    """On one line; of a long text its beginning and its end."""
    if len(text) > characters:
        kept = max((characters - 5) // 2, 1)
        text = f"{text[:kept]} ... {text[-kept:]}"
    return json.dumps(text, ensure_ascii=False)
