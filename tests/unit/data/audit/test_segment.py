"""Who was in a step, and when a document was read: each is the inverse of the other, and both are what loaders give."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.data.audit.facts import facts_of_reads, facts_of_sample
from megatron.data.audit.search import reads_of
from megatron.data.audit.segment import AuditedSegment, Moves, first_tokens, open_segment, segment_with
from megatron.data.datasets import build_part, open_sources
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.ledger.reached import datasets_of, taken
from megatron.data.ledger.record import reach, record_segment
from megatron.data.ledger.segments import Ledger
from megatron.data.loaders import StepLoader
from megatron.data.origins import write_origins
from megatron.data.piece import Piece
from megatron.errors import DataError
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from tests.unit.training.test_batches import arguments

SIZES = (3, 40, 17, 1, 9, 66, 25, 8, 31, 12)
TOPOLOGY = Topology(pipe=2, data=2, tensor=2)
RAMP = {"rampup_batch_size": [4, 4, 16], "train_batch_size": 8}
CURRICULUM = {
    "curriculum_learning": {
        "enabled": True,
        "curriculum_type": "seqlen",
        "min_difficulty": 8,
        "max_difficulty": 16,
        "schedule_type": "fixed_linear",
        "schedule_config": {"total_curriculum_step": 4, "difficulty_step": 8},
    }
}
KINDS = {
    "packed": {},
    "packed in a ramp": RAMP,
    "packed in a curriculum": CURRICULUM,
    "whole documents": {"pack_impl": "pack_until_overflow"},
    "one document a sample": {"pack_impl": "unpacked"},
    "whole documents in a curriculum": {"pack_impl": "pack_until_overflow", **CURRICULUM},
}


def write(prefix: Path, first: int = 0) -> str:
    """Documents in which every token is another number."""
    ends = np.cumsum(SIZES) + first
    with IndexedDatasetWriter(prefix, dtype=np.int32) as writer:
        for size, end in zip(SIZES, ends, strict=True):
            writer.add_document(range(end - size, end))
    return str(prefix)


def settings(directory: Path, *, blended: bool, **changes: Any) -> NeoXArgs:
    a, b = write(directory / "a"), write(directory / "b", first=1000)
    keys: dict[str, Any] = {"data_path": a, "split": "80,20,0"}
    if blended:
        paths = [a, b, a]
        keys = {"data_path": None, "train_data_paths": paths, "valid_data_paths": [a], "test_data_paths": [a]}
        keys["train_data_weights"] = [3, 2, 1]
    lengths = {"seq_length": 16, "max_position_embeddings": 16, "train_batch_size": 8, "train_iters": 7}
    return arguments(
        directory, **{**keys, **lengths, "train_micro_batch_size_per_gpu": 2, "global_num_gpus": 2, **changes}
    )


def record(args: NeoXArgs, *, longer: int = 0) -> tuple[Any, Ledger]:
    """The dataset of a run and its ledger at the beginning. longer: steps beyond those that the data is laid out for."""
    schedule = batch_schedule(args)
    samples, sources = schedule.samples_before(args.train_iters or 0), open_sources(args)["train"]
    dataset = build_part(args, "train", sources, samples)
    assert dataset is not None
    facts: dict[str, Any] = {"iteration": 0, "schedule": schedule, "topology": TOPOLOGY, "num_samples": samples}
    segment = record_segment(args, dataset, sources, **facts)
    return dataset, Ledger((replace(segment, train_iters=segment.train_iters + longer),))


def audit(args: NeoXArgs, ledger: Ledger, moves: Moves | None = None) -> AuditedSegment:
    (stretch,) = ledger.stretches()
    return open_segment(args, *stretch, moves or Moves())


def tokens_of(audited: AuditedSegment, pieces: tuple[Piece, ...]) -> list[int]:
    datasets = {source.dataset.prefix: source.dataset for source in audited.sources}
    parts = [datasets[piece.prefix].get(piece.document, piece.offset, piece.length) for piece in pieces]
    return np.concatenate(parts).tolist()


@pytest.fixture(params=[False, True], ids=["one dataset", "a blend"])
def blended(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_holds_what_the_loaders_of_all_ranks_read(kind: str, blended: bool, tmp_path: Path) -> None:
    args = settings(tmp_path, blended=blended, **KINDS[kind])
    dataset, ledger = record(args, longer=14)
    audited = audit(args, Ledger.from_json(ledger.to_json()))
    for data_rank in range(2):
        loader = StepLoader(
            dataset, audited.plan(data_rank), vocab_size=2000, steps=21, wrap=True, lengths=audited.segment.lengths
        )
        for step, batches in enumerate(loader):
            reads = [read for read in audited.samples_of(step) if read.data_rank == data_rank]
            rows = [
                (micro, row)
                for micro, batch in enumerate(batches or ())
                for row in torch.cat([batch.tokens, batch.labels[:, -1:]], 1)
            ]
            assert len(rows) == len(reads) > 0
            for read, (micro, row) in zip(reads, rows, strict=True):
                tokens = tokens_of(audited, read.pieces)
                assert (read.micro_batch, row[: len(tokens)].tolist()) == (micro, tokens)
                assert not row[len(tokens) :].any()  # padding


@pytest.mark.parametrize("kind", KINDS)
def test_when_is_the_inverse_of_who(kind: str, blended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.data.audit.search.CHUNK", 7)
    args = settings(tmp_path, blended=blended, **KINDS[kind])
    audited = audit(args, record(args, longer=14)[1])
    who = sorted(
        (step, read.data_rank, read.micro_batch, read.sample, piece.prefix, piece.document, piece.offset, piece.length)
        for step in audited.steps
        for read in audited.samples_of(step)
        for piece in read.pieces
    )
    when = sorted(
        (
            read.step,
            read.data_rank,
            read.micro_batch,
            read.sample,
            read.piece.prefix,
            document,
            read.piece.offset,
            read.piece.length,
        )
        for number, source in enumerate(audited.sources)
        for document in range(len(source.dataset))
        for read in reads_of(audited, number, document)
    )
    assert who == when


def test_a_document_comes_as_often_as_there_are_epochs(tmp_path: Path) -> None:
    args = settings(tmp_path, blended=False, pack_impl="unpacked", split="100,0,0")
    audited = audit(args, record(args)[1])
    reads = facts_of_reads([(audited, reads_of(audited, 0, 2))], steps_made=3)
    assert [read["reading"] for read in reads] == list(range(1, len(reads) + 1))
    assert len(reads) == 56 // len(SIZES) + (56 % len(SIZES) > 2)
    assert [read["done"] for read in reads] == [read["step"] <= 3 for read in reads]
    assert {tuple(read["ranks"]) for read in reads} <= {(0, 1, 4, 5), (2, 3, 6, 7)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_reached_is_what_the_steps_read(
    kind: str, blended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.data.ledger.reached.CHUNK", 5)
    monkeypatch.setattr("megatron.data.document_dataset.SAMPLES", 3)
    args = settings(tmp_path, blended=blended, **KINDS[kind])
    dataset, ledger = record(args, longer=14)
    audited = audit(args, ledger)
    ledger = reach(reach(ledger, dataset, 2), dataset, 19)
    reads = [read for step in range(19) for read in audited.samples_of(step)]
    numbers = [int(dataset.order["dataset"][read.sample % len(dataset)]) if blended else 0 for read in reads]
    repeated = 0 if "pack_impl" in KINDS[kind] else 1  # the token that two packed samples share
    for number, source in enumerate(ledger.segments[0].sources):
        own = [read for read, its in zip(reads, numbers, strict=True) if its == number]
        assert source.reached.samples == len(own)
        assert source.reached.tokens == sum(piece.length for read in own for piece in read.pieces) - repeated * len(own)
    assert ledger.iteration == 19


def test_counting_from_the_middle_gives_the_same(tmp_path: Path) -> None:
    dataset, _ = record(settings(tmp_path, blended=True))
    whole, first, rest = (taken(dataset, samples, 16) for samples in (range(50), range(23), range(23, 50)))
    assert [tuple(map(sum, zip(*parts, strict=True))) for parts in zip(first, rest, strict=True)] == whole
    assert len(datasets_of(dataset)) == 3


def test_data_that_changed_is_refused_and_data_that_moved_is_found(tmp_path: Path) -> None:
    args = settings(tmp_path, blended=True)
    _, ledger = record(args)
    before = audit(args, ledger).samples_of(3)
    (tmp_path / "new").mkdir()
    for path in [*tmp_path.glob("?.idx"), *tmp_path.glob("?.bin")]:
        shutil.move(path, tmp_path / "new" / path.name)
    with pytest.raises(DataError, match=r"does not exist.* --data OLD=NEW"):
        audit(args, ledger)
    moves = Moves(((str(tmp_path), str(tmp_path / "new")),))
    after = audit(args, ledger, moves).samples_of(3)
    assert [[piece.document for piece in read.pieces] for read in after] == [
        [piece.document for piece in read.pieces] for read in before
    ]
    write(tmp_path / "new" / "b", first=1001)
    with pytest.raises(DataError, match=r"new/b is not what the run read"):
        audit(args, ledger, moves)


def test_moves_are_of_files_and_of_directories() -> None:
    moves = Moves((("/data/a", "/new/b"), ("/data", "/elsewhere")))
    assert moves.of("/data/a") == "/new/b"
    assert moves.of("/data/a/x") == "/new/b/x"
    assert moves.of("/data/ab") == "/elsewhere/ab"
    assert moves.of("/other") == "/other"


def test_a_step_outside_the_run_is_an_error(tmp_path: Path) -> None:
    _, ledger = record(settings(tmp_path, blended=False))
    assert segment_with(ledger, 6)[1] == range(7)
    with pytest.raises(DataError, match="step 8 is not in this checkpoint's record, which knows steps 1 to 7"):
        segment_with(ledger, 7)


def test_pieces_are_cut_where_the_tokens_end() -> None:
    pieces = tuple(Piece(Path("a"), document, 5, 10) for document in range(3))
    assert [piece.length for piece in first_tokens(pieces, 25)] == [10, 10, 5]
    assert [piece.length for piece in first_tokens(pieces, 20)] == [10, 10]
    assert first_tokens(pieces, 99) == pieces


def test_documents_name_the_files_they_came_from(tmp_path: Path) -> None:
    args = settings(tmp_path, blended=True)
    write_origins(tmp_path / "a.sources.json", [("/texts/one", 4), ("/texts/other", 6)], tokens=sum(SIZES))
    audited = audit(args, record(args)[1])
    facts = [
        document
        for read in audited.samples_of(0)
        for document in facts_of_sample(audited, read, lambda ids: " ".join(map(str, ids)))["documents"]
    ]
    for document in facts:
        number = document["document"]
        if document["dataset"].endswith("b"):
            assert (document["file"], document["number"]) == (None, None)
        else:
            assert (document["file"], document["number"]) == (
                ("/texts/one", number) if number < 4 else ("/texts/other", number - 4)
            )
        assert len(document["text"].split()) == document["tokens"][1] - document["tokens"][0]
        assert document["of"] == SIZES[number]
    assert {document["dataset"] for document in facts} == {str(tmp_path / "a"), str(tmp_path / "b")}
