"""From files to indexed datasets: the inputs are cut into pieces, each worker reads, parses, tokenises and writes whole pieces, and
the shards are put together in the order of the pieces.

The output is the same to the byte for any number of workers, and after any number of kills: it is the documents in input order, however
the input was cut. Memory does not grow with the input.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron.data.companions import check_none_stale
from megatron.data.encoding.assembly import Assembly
from megatron.data.encoding.manifest import Manifest, check_unchanged, describe_recipe
from megatron.data.encoding.pool import encode_pieces
from megatron.data.encoding.progress import EncodeProgress
from megatron.data.encoding.shard import LISTED, OnError, ShardNote
from megatron.data.encoding.texts import EncodedDataset, check_any, check_workers, dataset_prefix_of
from megatron.data.encoding.work import WorkDirectory
from megatron.data.encoding.worker import Counts, Encoder, EncodeRecipe
from megatron.data.indexed_dataset import origins_path
from megatron.data.inputs.fingerprint import fingerprint
from megatron.data.inputs.pieces import Piece, choose_piece_bytes, cut_pieces
from megatron.data.inputs.span import Bad
from megatron.data.origins import joined, write_origins
from megatron.errors import DataError


@dataclass(frozen=True)
class EncodedFiles:
    """The outputs, one a key or more; how much was read; and the places of the first bad documents, which were left out."""

    datasets: tuple[EncodedDataset, ...]
    counts: Counts
    bad: tuple[str, ...]


def encode_files(
    paths: Sequence[Path],
    recipe: EncodeRecipe,
    *,
    output_prefix: Path,
    workers: int = 1,
    progress: EncodeProgress | None = None,
    on_error: OnError = "fail",
    resume: bool = False,
) -> EncodedFiles:
    """Encode files (see inputs/), in the order given, into datasets `{output_prefix}_{name}_document`: one for each of the recipe's keys,
    or those that its encoder names.

    Documents without tokens are skipped. on_error: what a bad document does; "skip" leaves it out of every output, "fail" raises
    DataError with its place. resume: continue what an earlier call with the same inputs and recipe had not finished, if there is such
    a thing. Raises DataError when inputs or recipe have changed since, or an older output has labels that
    would be left beside a new one, MissingRequirement for a package that is needed. Datasets
    appear whole or not at all.
    """
    check_workers(workers)
    encoder = recipe.build_encoder()
    inputs = tuple(fingerprint(path) for path in paths)
    work = WorkDirectory(output_prefix)
    prefixes = [dataset_prefix_of(output_prefix, output.name) for output in encoder.outputs]
    check_none_stale(prefixes)
    with work.opened():
        manifest = work.manifest() if resume else None
        if manifest is not None:
            check_unchanged(manifest, recipe=describe_recipe(encoder), inputs=inputs)
            work.go_on(manifest)
        else:
            piece_bytes = choose_piece_bytes(sum(file.size for file in inputs), workers)
            manifest = Manifest(describe_recipe(encoder), piece_bytes, secrets.token_hex(4), inputs)
            work.start(manifest)
        whole = work.summary()
        if whole is None:
            pieces = list(cut_pieces(inputs, manifest.piece_bytes))
            encoder.take_sample(pieces)
            whole = _encode(pieces, work, encoder, workers, progress or EncodeProgress(), on_error).to_json()
            work.write_summary(whole)
        work.publish(prefixes)
    summary = _Summary.from_json(whole)
    documents = summary.counts.documents
    outputs = zip(encoder.outputs, prefixes, summary.tokens, strict=True)
    datasets = tuple(EncodedDataset(output.name, prefix, documents, tokens) for output, prefix, tokens in outputs)
    return EncodedFiles(datasets, summary.counts, summary.bad)


@dataclass(frozen=True)
class _Summary:
    """What is known when all outputs are whole: `tokens` by output, `bad` in words."""

    counts: Counts
    tokens: tuple[int, ...]
    bad: tuple[str, ...]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode("utf-8")

    @classmethod
    def from_json(cls, data: bytes) -> _Summary:
        values = json.loads(data)
        return cls(Counts(**values["counts"]), tuple(values["tokens"]), tuple(values["bad"]))


def _encode(
    pieces: Sequence[Piece],
    work: WorkDirectory,
    encoder: Encoder,
    workers: int,
    progress: EncodeProgress,
    on_error: OnError,
) -> _Summary:
    """Make all outputs in the work directory."""
    counts, bad, origins = Counts(), list[Bad](), list[tuple[str, int]]()
    with contextlib.ExitStack() as stack:
        outputs = [Assembly(work.directory, k, output.dtype) for k, output in enumerate(encoder.outputs)]
        for output in outputs:
            stack.callback(output.close)
        notes = encode_pieces(pieces, work, encoder, workers=workers, on_error=on_error, progress=progress)
        stack.enter_context(contextlib.closing(notes))
        stack.enter_context(progress)
        for piece, result in zip(pieces, notes, strict=True):
            note = _accepted(result, on_error)
            for output, tokens in zip(outputs, note.tokens, strict=True):
                output.append(piece.number, tokens)
            counts += note.counts
            bad += note.bad[: LISTED - len(bad)]
            paths = (os.path.abspath(span.path) for span in piece.spans)
            origins += zip(paths, note.by_span, strict=True)
        if counts.documents == 0:
            work.remove()
            check_any(counts.documents, counts.skipped)
        for k, output in enumerate(outputs):
            output.finish(len(pieces))
            write_origins(origins_path(work.directory / str(k)), joined(origins), tokens=output.tokens)
    return _Summary(counts, tuple(output.tokens for output in outputs), tuple(one.describe() for one in bad))


def _accepted(result: ShardNote | Bad, on_error: OnError) -> ShardNote:
    """The note of a shard, unless a bad document ended it, or an earlier run that allowed them met one: DataError."""
    if isinstance(result, Bad):
        raise DataError(result.describe())
    if result.bad and on_error == "fail":
        raise DataError(result.bad[0].describe())
    return result
