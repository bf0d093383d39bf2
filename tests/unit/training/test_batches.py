"""The batches of a run go on at the next sample, whatever batch size the steps before had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from megatron.data.batch import Batch
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.sequence_schedule import tokens_before
from megatron.planning.model.flops import model_flops_per_token
from megatron.training.batches import BatchFactory, resolve_epochs
from megatron.training.speed import work_of_steps
from megatron.training.state import TrainState

SEQUENCE = 8


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(tmp_path / "data", dtype=np.uint16) as writer:
        for _ in range(50):
            writer.add_document(generator.integers(0, 100, size=40))
    return tmp_path / "data"


def arguments(data: Path, **changes: Any) -> NeoXArgs:
    config = {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "seq_length": SEQUENCE,
        "max_position_embeddings": SEQUENCE,
        "train_batch_size": 4,
        "train_iters": 6,
        "data_path": str(data),
        "split": "100,0,0",
        "eval_iters": 0,
        "num_workers": 0,
        **changes,
    }
    return NeoXArgs.from_dict(config)


def batches_of(args: NeoXArgs, state: TrainState) -> list[Batch]:
    """All training micro-batches from `state` on."""
    return [batch for step in steps_of(args, state) for batch in step]


def steps_of(args: NeoXArgs, state: TrainState) -> list[list[Batch]]:
    """The training micro-batches of each step from `state` on."""
    tokenizer: Any = SimpleNamespace(vocab_size=100, eod=0)
    factory = BatchFactory(args, World(single_process_groups(), torch.device("cpu")), tokenizer, state, reads_data=True)
    return [list(step or ()) for step in factory.train(factory.build_datasets())]


def tokens_of(args: NeoXArgs, state: TrainState) -> torch.Tensor:
    """All training samples from `state` on, one a row."""
    return torch.cat([batch.tokens for batch in batches_of(args, state)])


def test_a_resumed_run_reads_what_the_uninterrupted_one_would(data: Path) -> None:
    args = arguments(data)
    whole = tokens_of(args, TrainState())
    assert whole.shape == (24, SEQUENCE)
    assert torch.equal(tokens_of(args, TrainState(iteration=2, consumed_samples=8)), whole[8:])


@pytest.mark.parametrize(("batch", "iterations"), [(8, 4), (2, 10)])
def test_another_batch_size_leaves_no_sample_out_and_reads_none_twice(data: Path, batch: int, iterations: int) -> None:
    whole = tokens_of(arguments(data), TrainState())
    changed = arguments(data, train_batch_size=batch, train_iters=iterations)
    assert torch.equal(tokens_of(changed, TrainState(iteration=2, consumed_samples=8)), whole[8:])


RAMP = {"rampup_batch_size": [2, 2, 20], "train_micro_batch_size_per_gpu": 2, "train_batch_size": 6, "train_iters": 12}
"""5 steps of 2 samples, 3 of 4 (which reach 22), then 6."""

CURRICULUM = {
    "enabled": True,
    "min_difficulty": 2,
    "max_difficulty": SEQUENCE,
    "schedule_config": {"total_curriculum_step": 6, "difficulty_step": 2},
}


@pytest.mark.parametrize("done", [0, 3, 6, 10])
def test_a_ramp_takes_more_micro_batches_and_goes_on_where_it_was(data: Path, done: int) -> None:
    args = arguments(data, **RAMP)
    whole = steps_of(args, TrainState())
    assert [len(step) for step in whole] == [1] * 5 + [2] * 3 + [3] * 4
    ordered = torch.cat([batch.tokens for step in whole for batch in step])
    assert torch.equal(ordered, tokens_of(arguments(data, train_batch_size=1, train_iters=46), TrainState()))
    consumed = batch_schedule(args).samples_before(done)
    resumed = tokens_of(args, TrainState(iteration=done, consumed_samples=consumed))
    assert torch.equal(resumed, ordered[consumed:])


def test_a_curriculum_takes_the_beginning_of_every_sample(data: Path) -> None:
    whole, short = (
        steps_of(arguments(data, curriculum_learning={**CURRICULUM, "enabled": on}), TrainState())
        for on in (False, True)
    )
    lengths = [2, 4, 4, 6, 6, 8]  # 2 + k for k = 1 .. 6, rounded down to even numbers
    for length, [cut], [full] in zip(lengths, short, whole, strict=True):
        assert torch.equal(cut.tokens, full.tokens[:, :length])
        assert torch.equal(cut.labels, full.labels[:, :length])
        assert cut.loss_mask.shape == cut.position_ids.shape == (4, length)
    args = arguments(data, curriculum_learning=CURRICULUM)
    resumed = steps_of(args, TrainState(iteration=2, consumed_samples=8))
    assert all(torch.equal(again.tokens, cut.tokens) for [again], [cut] in zip(resumed, short[2:], strict=True))


def test_evaluation_takes_whole_batches_of_whole_samples_and_the_same_every_time(data: Path) -> None:
    changes = {**RAMP, "split": "90,10,0", "eval_iters": 9, "curriculum_learning": CURRICULUM}
    tokenizer: Any = SimpleNamespace(vocab_size=100, eod=0)
    world = World(single_process_groups(), torch.device("cpu"))
    factory = BatchFactory(arguments(data, **changes), world, tokenizer, TrainState(), reads_data=True)
    source = factory.evaluation(factory.build_datasets().valid["validation"])
    first, second = ([torch.cat([batch.tokens for batch in step or ()]) for step in source()] for _ in range(2))
    assert [tuple(tokens.shape) for tokens in first] == [(6, SEQUENCE)] * 9
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    # 5 documents of 40 tokens give 24 samples an epoch; 54 are taken.
    text = np.random.default_rng(0).integers(0, 100, size=(50, 40))[45:]
    seen = {int(token) for tokens in first for token in tokens.unique()}
    assert seen == set(text.ravel().tolist())


@pytest.mark.parametrize("pack_impl", ["pack_until_overflow", "unpacked"])
def test_whole_documents_are_read_on_where_the_run_was(data: Path, pack_impl: str) -> None:
    args = arguments(data, pack_impl=pack_impl, seq_length=90, max_position_embeddings=90)
    whole = batches_of(args, TrainState())
    resumed = batches_of(args, TrainState(iteration=2, consumed_samples=8))
    documents = 2 if pack_impl == "pack_until_overflow" else 1
    assert all((batch.loss_mask.sum(dim=1) == 40 * documents - 1).all() for batch in whole)
    assert all(torch.equal(old.tokens, new.tokens) for old, new in zip(whole[2:], resumed, strict=True))


def test_the_end_of_a_document_changes_what_the_configuration_says(data: Path) -> None:
    """Token 0, which these documents have in their middle, ends one."""
    keys = ("eod_mask_loss", "reset_position_ids", "reset_attention_mask")
    seen = {key: batches_of(arguments(data, **{key: True}), TrainState()) for key in keys}
    plain = batches_of(arguments(data), TrainState())
    for key in keys:
        changed = [
            not all(bool(batch.loss_mask.all()) for batch in seen[key]),
            any(
                not torch.equal(one.position_ids, other.position_ids)
                for one, other in zip(seen[key], plain, strict=True)
            ),
            all(batch.document_ids is not None for batch in seen[key]),
        ]
        assert changed == [key == each for each in keys]
    assert not any(batch.document_ids is not None for batch in plain)


def test_epochs_become_iterations(data: Path) -> None:
    args = resolve_epochs(arguments(data, train_iters=None, train_epochs=2))
    # 50 documents of 40 tokens, twice, less one token, in samples of 8 and batches of 4.
    assert args.train_iters == (2 * 50 * 40 - 1) // SEQUENCE // 4
    assert resolve_epochs(arguments(data)).train_iters == 6


@pytest.mark.parametrize("pack_impl", ["packed", "unpacked"])
def test_epochs_become_the_iterations_of_a_ramp(data: Path, pack_impl: str) -> None:
    args = resolve_epochs(arguments(data, **{**RAMP, "train_iters": None, "train_epochs": 2, "pack_impl": pack_impl}))
    samples = (2 * 50 * 40 - 1) // SEQUENCE if pack_impl == "packed" else 2 * 50
    # 8 steps take 22 samples, those after them 6 each.
    assert args.train_iters == 8 + (samples - 22) // 6


@pytest.mark.parametrize(
    "changes", [{}, RAMP, {"curriculum_learning": CURRICULUM}, {**RAMP, "curriculum_learning": CURRICULUM}]
)
def test_the_work_of_steps_counts_what_their_batches_hold(data: Path, changes: dict[str, Any]) -> None:
    args = arguments(data, **changes)
    work = work_of_steps(args, vocab_size=100)
    tokens = 0
    for step, batches in enumerate(steps_of(args, TrainState())):
        found = work(step)
        assert tokens == tokens_before(args, step)
        assert (found.shape.micro_batches, found.shape.length) == (len(batches), batches[0].tokens.shape[1])
        assert found.samples == sum(len(batch.tokens) for batch in batches)
        assert found.tokens == sum(batch.tokens.numel() for batch in batches)
        alone = arguments(data, seq_length=found.shape.length)
        assert found.model_flops == found.tokens * model_flops_per_token(alone, vocab_size=100)
        tokens += found.tokens


def test_label_data_of_the_configuration_says_what_is_predicted(data: Path) -> None:
    """Here odd tokens."""
    text = IndexedDataset(data)
    with IndexedDatasetWriter(data.with_name("labels"), dtype=np.int32) as writer:
        for document in text:
            writer.add_document(np.where(document % 2, document.astype(np.int32), -100))
    lists = {f"{part}_data_paths": [str(data)] for part in ("train", "valid", "test")}
    labels = {"train_label_data_paths": [str(data.with_name("labels"))]}
    args = arguments(data, data_path=None, **lists)
    plain = batches_of(args, TrainState())
    labelled = batches_of(arguments(data, data_path=None, **lists, **labels), TrainState())
    for one, other in zip(plain, labelled, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(other.loss_mask, (one.labels % 2).to(torch.float32))
