"""The batches of a run go on at the next sample, whatever batch size the steps before had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from megatron.data.batch import Batch
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.training.batches import BatchFactory, resolve_epochs
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
    tokenizer: Any = SimpleNamespace(vocab_size=100, eod=0)
    factory = BatchFactory(args, World(single_process_groups(), torch.device("cpu")), tokenizer, state, reads_data=True)
    return [batch for step in factory.train(factory.build_datasets()) for batch in step or ()]


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
