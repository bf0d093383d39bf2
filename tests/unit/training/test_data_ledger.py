"""A run that goes on with other data says so and ends, unless that is meant; what leaves the order as it was is nobody's business."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from megatron.checkpointing.manifest import file_facts, write_manifest
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.ledger.segments import LEDGER, Ledger, read_ledger
from megatron.errors import CheckpointError, DataError
from megatron.initialize import World
from megatron.mpu.groups import SINGLE, single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.training import setup
from megatron.training.batches import BatchFactory
from megatron.training.data_ledger import continue_ledger, load_ledger
from megatron.training.state import TrainState
from tests.unit.training.test_batches import arguments, data

__all__ = ["data"]


class Run:
    """What a run reads, step by step, from `before` on until `steps` more are made. passed_over: samples that it leaves out there."""

    def __init__(
        self, args: NeoXArgs, directory: Path, *, steps: int, before: Run | None = None, passed_over: int = 0
    ) -> None:
        world = World(single_process_groups(), torch.device("cpu"))
        state = TrainState() if before is None else before.state
        state = replace(state, consumed_samples=state.consumed_samples + passed_over)
        past = None if before is None else load_ledger(before.checkpoint, SINGLE)
        laid_out = 0 if past is None else past.segments[-1].num_samples
        tokenizer: Any = SimpleNamespace(vocab_size=2**16, eod=0)
        factory = BatchFactory(args, world, tokenizer, state, True, laid_out)
        datasets = factory.build_datasets()
        keeper = continue_ledger(args, world, state, datasets, before=past, train_samples=factory.train_samples)
        batches = factory.train(datasets)
        self.read = []
        for _ in range(steps):
            tokens = torch.cat([batch.tokens for batch in next(batches) or ()])
            self.read.append(tokens)
            state = state.advance(samples=len(tokens), tokens=tokens.numel(), skipped=False)
        self.state = state
        self.checkpoint = directory / f"global_step{state.iteration}"
        self.checkpoint.mkdir(exist_ok=True)
        for name, content in keeper.files(state).items():
            (self.checkpoint / name).write_bytes(content)

    @property
    def ledger(self) -> Ledger:
        ledger = read_ledger(self.checkpoint)
        assert ledger is not None
        return ledger


def write(prefix: Path, *, first: int = 0, documents: int = 30) -> str:
    generator = np.random.default_rng(first)
    with IndexedDatasetWriter(prefix, dtype=np.uint16) as writer:
        for _ in range(documents):
            writer.add_document(first + generator.integers(0, 100, size=40))
    return str(prefix)


def blend(tmp_path: Path, **changes: Any) -> NeoXArgs:
    paths = [write(tmp_path / "a"), write(tmp_path / "b", first=1000)]
    keys = {"data_path": None, "train_data_paths": paths, "valid_data_paths": paths[:1], "test_data_paths": paths[:1]}
    return arguments(tmp_path, **{**keys, "train_data_weights": [3, 1], **changes})


def changed(args: NeoXArgs, **changes: Any) -> NeoXArgs:
    return args.model_copy(update=changes)


def test_the_ledger_says_what_was_asked_for_and_what_was_reached(tmp_path: Path) -> None:
    first = Run(blend(tmp_path), tmp_path, steps=3)
    (segment,) = first.ledger.segments
    assert [source.weight for source in segment.sources] == [3, 1]
    assert [source.tokens for source in segment.sources] == [1200, 1200]
    assert [source.reached.samples for source in segment.sources] == [9, 3]
    assert [source.reached.tokens for source in segment.sources] == [9 * 8, 3 * 8]
    assert segment.sources[0].reached.epochs == pytest.approx(9 * 8 / 1200)
    assert segment.sources[0].files.path == str(tmp_path / "a")
    assert set(first.ledger.evaluation) >= {"valid", "test"}
    # Counted further from there, not anew.
    again = Run(blend(tmp_path), tmp_path, steps=2, before=first)
    (segment,) = again.ledger.segments
    assert [source.reached.samples for source in segment.sources] == [15, 5]
    from_a = sum(int((tokens < 1000).all(dim=1).sum()) for run in (first, again) for tokens in run.read)
    assert from_a == 15


def test_a_resumed_run_reads_on_and_stays_one_segment(data: Path, tmp_path: Path) -> None:
    whole = Run(arguments(data), tmp_path, steps=6)
    half = Run(arguments(data), tmp_path, steps=3)
    rest = Run(arguments(data), tmp_path, steps=3, before=half)
    assert all(torch.equal(one, other) for one, other in zip(whole.read, half.read + rest.read, strict=True))
    assert rest.ledger == whole.ledger


def append_document(prefix: Path) -> None:
    documents = [document.copy() for document in IndexedDataset(prefix)]
    with IndexedDatasetWriter(prefix, dtype=np.uint16) as writer:
        for document in [*documents, documents[0]]:
            writer.add_document(document)


def replace_bytes(prefix: Path) -> None:
    path = prefix.with_name(prefix.name + ".bin")
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x01\x00\x02\x00")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            append_document,
            r"data\.idx and \S+data\.bin hold something else than before; of \S+ documents 0 to 49 were used and 0 to 50 are",
        ),
        (replace_bytes, r"data\.bin holds something else than before"),
    ],
)
def test_data_that_was_changed_is_refused_with_what_changed(
    change: Any, sentence: str, data: Path, tmp_path: Path
) -> None:
    before = Run(arguments(data), tmp_path, steps=2)
    change(data)
    with pytest.raises(CheckpointError, match=sentence):
        Run(arguments(data), tmp_path, steps=1, before=before)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 5}, "seed was 1234 and is 5"),
        ({"seq_length": 16, "max_position_embeddings": 16}, "seq_length was 8 and is 16"),
        ({"pack_impl": "unpacked"}, "pack_impl was packed and is unpacked"),
        ({"split": "80,20,0"}, "documents 0 to 49 were used and 0 to 39 are"),
    ],
)
def test_keys_that_change_what_steps_read_are_refused(
    changes: dict[str, Any], sentence: str, data: Path, tmp_path: Path
) -> None:
    before = Run(arguments(data), tmp_path, steps=2)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        Run(arguments(data, **changes), tmp_path, steps=1, before=before)
    assert "from iteration 3 on" in str(caught.value)
    assert "allow_data_change" in str(caught.value)


def test_changed_data_is_refused_before_anything_is_built(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resume(**changes: Any) -> None:
        args = arguments(data, **{"load": str(tmp_path / "checkpoints"), "load_if_exists": True, **changes})
        setup.build_run(args, World(single_process_groups(), torch.device("cpu")))

    class Reached(Exception):
        """What comes after the comparison."""

    def build_tokenizer(args: NeoXArgs) -> None:
        raise Reached

    monkeypatch.setattr(setup, "build_tokenizer", build_tokenizer)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(Reached):
        resume()  # there is nothing to go on from
    before = Run(arguments(data), tmp_path / "checkpoints", steps=2)
    write_manifest(before.checkpoint, {LEDGER: file_facts((before.checkpoint / LEDGER).read_bytes())})
    with pytest.raises(Reached):
        resume(train_iters=9)
    replace_bytes(data)
    with pytest.raises(CheckpointError, match=r"from iteration 3 on .*data\.bin holds something else"):
        resume()
    for meant in ({"finetune": True}, {"allow_data_change": True}):
        with pytest.raises(Reached):
            resume(**meant)
    data.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match="is incomplete"):
        resume()


def test_another_blend_is_refused(tmp_path: Path) -> None:
    args = blend(tmp_path)
    before = Run(args, tmp_path, steps=2)
    a, b = args.train_data_paths or ()
    with pytest.raises(CheckpointError, match=rf"it was to: the order of the blend was {a}, {b} and is {b}, {a}\."):
        Run(changed(args, train_data_paths=(b, a)), tmp_path, steps=1, before=before)
    with pytest.raises(CheckpointError, match=rf"the share of {a} was 0\.75 and is 0\.5"):
        Run(changed(args, train_data_weights=(1, 1)), tmp_path, steps=1, before=before)
    with pytest.raises(CheckpointError, match=rf"the data was {a}, {b} and is {a}:?"):
        Run(changed(args, train_data_paths=(a,), train_data_weights=(1,)), tmp_path, steps=1, before=before)
    Run(changed(args, train_data_weights=(6, 2)), tmp_path, steps=1, before=before)  # the same shares
    assert 0.6 / (0.6 + 0.1) != 6 / (6 + 1)
    before = Run(changed(args, train_data_weights=(6, 1)), tmp_path, steps=2)
    with pytest.raises(CheckpointError, match=r"the weights were 6, 1 and are 0\.6, 0\.1, whose shares are rounded"):
        Run(changed(args, train_data_weights=(0.6, 0.1)), tmp_path, steps=1, before=before)


def test_a_change_of_labels_is_refused(tmp_path: Path) -> None:
    args = blend(tmp_path)
    for name in ("a", "b"):
        with IndexedDatasetWriter(tmp_path / f"{name}_labels", dtype=np.int32) as writer:
            for document in IndexedDataset(tmp_path / name):
                writer.add_document(document.astype(np.int32))
    labels = (str(tmp_path / "a_labels"), str(tmp_path / "b_labels"))
    labelled = changed(args, train_label_data_paths=labels)
    before = Run(labelled, tmp_path, steps=2)
    with pytest.raises(CheckpointError, match=r"the label data of \S+/a was \S+/a_labels and is none"):
        Run(args, tmp_path, steps=1, before=before)
    with IndexedDatasetWriter(tmp_path / "b_labels", dtype=np.int32) as writer:
        for document in IndexedDataset(tmp_path / "b"):
            writer.add_document(np.full(len(document), -100))
    with pytest.raises(CheckpointError, match=r"b_labels\.bin holds something else than before"):
        Run(labelled, tmp_path, steps=1, before=before)


def test_data_that_was_moved_is_the_same_data(data: Path, tmp_path: Path) -> None:
    whole = Run(arguments(data), tmp_path, steps=4)
    before = Run(arguments(data), tmp_path, steps=2)
    (tmp_path / "elsewhere").mkdir()
    for suffix in (".bin", ".idx"):
        copy = shutil.copy(data.with_suffix(suffix), tmp_path / "elsewhere" / f"other{suffix}")
        os.utime(copy, (1, 1))
    moved = Run(arguments(tmp_path / "elsewhere" / "other"), tmp_path, steps=2, before=before)
    assert all(torch.equal(one, other) for one, other in zip(whole.read[2:], moved.read, strict=True))
    (segment,) = moved.ledger.segments
    assert segment.sources[0].files.path == str(tmp_path / "elsewhere" / "other")


PACKINGS = ("packed", "pack_until_overflow", "unpacked")


@pytest.mark.parametrize("pack_impl", PACKINGS)
def test_a_shorter_run_or_smaller_batches_leave_the_order_as_it_was(pack_impl: str, data: Path, tmp_path: Path) -> None:
    keys = {"pack_impl": pack_impl, "seq_length": 40, "max_position_embeddings": 40}
    whole = torch.cat(Run(arguments(data, **keys), tmp_path, steps=6).read)
    before = Run(arguments(data, **keys), tmp_path, steps=2)
    after = Run(arguments(data, **keys, train_iters=5, train_batch_size=2), tmp_path, steps=3, before=before)
    assert torch.equal(torch.cat(after.read), whole[8:14])
    first, second = after.ledger.segments
    assert (first.iteration, first.schedule.samples_before(2)) == (0, 8)
    assert (second.iteration, second.schedule.samples_before(2), second.schedule.batch_of(2)) == (2, 8, 2)
    assert [segment.sources[0].reached.samples for segment in (first, second)] == [8, 6]
    assert [list(steps) for _, steps in after.ledger.stretches()] == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize("pack_impl", PACKINGS)
def test_a_longer_run_reads_its_data_to_the_end_and_begins_again(
    pack_impl: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"pack_impl": pack_impl, "seq_length": 400, "max_position_embeddings": 400, "train_batch_size": 2}
    whole = Run(arguments(data, **keys, train_iters=2), tmp_path, steps=2)
    with caplog.at_level(logging.WARNING):
        longer = Run(arguments(data, **keys, train_iters=5), tmp_path, steps=3, before=whole)
    assert "5 iterations take 10 samples, and the data was laid out for 4" in caplog.text
    assert "in iteration 3 the first ones come again" in caplog.text
    assert all(torch.equal(one, whole.read[step % 2]) for step, one in enumerate(longer.read))
    assert [segment.train_iters for segment in longer.ledger.segments] == [2, 5]
    assert [segment.sources[0].reached.samples for segment in longer.ledger.segments] == [4, 6]
    caplog.clear()
    Run(arguments(data, **keys, train_iters=2), tmp_path, steps=0, before=whole)
    assert not caplog.text


@pytest.mark.parametrize("pack_impl", PACKINGS)
def test_samples_that_a_run_passes_over_are_in_no_step(pack_impl: str, data: Path, tmp_path: Path) -> None:
    keys = {"pack_impl": pack_impl, "seq_length": 40, "max_position_embeddings": 40}
    whole = torch.cat(Run(arguments(data, **keys), tmp_path, steps=6).read)
    before = Run(arguments(data, **keys), tmp_path, steps=2)
    after = Run(arguments(data, **keys), tmp_path, steps=2, before=before, passed_over=3)
    assert torch.equal(torch.cat(after.read), whole[11:19])
    later = Run(arguments(data, **keys), tmp_path, steps=1, before=after)
    assert torch.equal(later.read[0], whole[19:23])
    assert [segment.schedule.samples_before(segment.iteration) for segment in later.ledger.segments] == [0, 11]
    assert [segment.sources[0].reached.samples for segment in later.ledger.segments] == [8, 12]


def test_a_change_that_is_allowed_is_told_and_begins_a_segment(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Run(arguments(data), tmp_path, steps=2)
    allowed = arguments(data, seed=5, allow_data_change=True)
    with caplog.at_level(logging.WARNING):
        after = Run(allowed, tmp_path, steps=2, before=before)
    assert "seed was 1234 and is 5" in caplog.text
    assert torch.equal(after.read[0], Run(arguments(data, seed=5), tmp_path, steps=3).read[2])
    assert [segment.keys.seed for segment in after.ledger.segments] == [1234, 5]
    caplog.clear()
    Run(allowed, tmp_path, steps=1, before=after)
    assert "seed" not in caplog.text


def test_a_segment_without_a_step_is_forgotten(data: Path, tmp_path: Path) -> None:
    before = Run(arguments(data), tmp_path, steps=0)
    after = Run(arguments(data, train_batch_size=2), tmp_path, steps=1, before=before)
    (segment,) = after.ledger.segments
    assert segment.schedule.batch_of(0) == 2


def test_evaluation_data_that_was_changed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = {"valid_data_paths": [write(tmp_path / "held_out")], "eval_iters": 1}
    before = Run(blend(tmp_path, **keys), tmp_path, steps=2)
    replace_bytes(tmp_path / "held_out")
    with caplog.at_level(logging.WARNING):
        Run(blend(tmp_path, **keys), tmp_path, steps=1, before=before)
    assert "evaluations on validation data cannot be compared with earlier ones" in caplog.text
    assert "held_out.bin holds something else" in caplog.text


def test_a_checkpoint_without_a_ledger_is_resumed_with_a_line(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Run(arguments(data), tmp_path, steps=2)
    (before.checkpoint / LEDGER).unlink()
    with caplog.at_level(logging.WARNING):
        after = Run(arguments(data), tmp_path, steps=2, before=before)
    assert "does not say which data it was trained on" in caplog.text
    assert [segment.iteration for segment in after.ledger.segments] == [2]


def test_a_ledger_of_another_kind_is_refused(data: Path, tmp_path: Path) -> None:
    run = Run(arguments(data), tmp_path, steps=1)
    path = run.checkpoint / LEDGER
    path.write_bytes(replace(run.ledger, format=99).to_json())
    with pytest.raises(DataError, match="has format 99"):
        read_ledger(run.checkpoint)
    path.write_bytes(b'{"format": 99, "pieces": []}')
    with pytest.raises(DataError, match="has format 99"):
        read_ledger(run.checkpoint)
    for content in (b'{"segments": 3, "format": 1}', b'{"segments": [], "format": 1}', b"{"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is not a ledger that this version can read"):
            load_ledger(run.checkpoint, SINGLE)
