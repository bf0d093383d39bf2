"""Parquet: a row is a document, a key is the name of a column. A span is a range of row groups. Needs pyarrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.data.inputs.records import BadRecord, Fields
from megatron.data.inputs.span import Bad, DamagedFile, Document, Meter, Span
from megatron.errors import DataError, MissingRequirement

ROWS = 512  # read at a time


def cut_parquet(path: str, size: int, piece_bytes: int) -> Iterator[Span]:
    """Spans of about `piece_bytes` on disk, each of at least one row group."""
    try:
        with _opened(path) as file:
            groups = file.metadata.num_row_groups
    except DamagedFile:
        yield Span(path, 0, 0, size)  # reading it tells what is wrong
        return
    step = max(1, groups * piece_bytes // max(size, 1))
    for begin in range(0, groups, step):
        end = min(begin + step, groups)
        yield Span(path, begin, end, size * end // groups - size * begin // groups)


def read_parquet_span(span: Span, fields: Fields, meter: Meter) -> Iterator[Document]:
    """The documents of a span; rows count from 1 in messages. Raises DamagedFile, and DataError for a column that is not there."""
    with _opened(span.path) as file:
        _check_columns(span.path, file.schema_arrow.names, fields.keys)
        row = sum(file.metadata.row_group(i).num_rows for i in range(span.begin))
        rows = sum(file.metadata.row_group(i).num_rows for i in range(span.begin, span.end))
        done = 0
        batches = file.iter_batches(
            batch_size=ROWS, row_groups=range(span.begin, span.end), columns=list(fields.keys), use_threads=False
        )
        for batch in batches:
            columns = [batch.column(key).to_pylist() for key in fields.keys]
            for values in zip(*columns, strict=True):
                row += 1
                yield _document(values, fields, where=f"row {row} of {span.path}")
            done += batch.num_rows
            meter.consumed = span.size * done // rows
    meter.consumed = span.size


def _document(values: tuple[Any, ...], fields: Fields, *, where: str) -> Document:
    try:
        return fields.of_row(values)
    except BadRecord as error:
        return Bad(where, str(error))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A ParquetFile. Errors of pyarrow's, in the block as well, become DamagedFile."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingRequirement(
            f'{path} needs the package "pyarrow": pip install -r requirements/requirements-preprocessing.txt'
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise DamagedFile(f"not a whole parquet file: {error}") from None


def _check_columns(path: str, there: Sequence[str], keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in there]
    if missing:
        raise DataError(
            f"{Path(path)} has no column {', '.join(missing)} (it has {', '.join(there[:20])}): choose others with --jsonl-keys."
        )
