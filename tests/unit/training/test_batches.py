"""The batches of a run go on at the next sample, whatever batch size the steps before had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

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


def tokens_of(args: NeoXArgs, state: TrainState) -> torch.Tensor:
    """All training samples from `state` on, one a row."""
    tokenizer: Any = SimpleNamespace(vocab_size=100, eod=0)
    factory = BatchFactory(args, World(single_process_groups(), torch.device("cpu")), tokenizer, state, reads_data=True)
    steps = list(factory.train(factory.build_datasets()))
    return torch.cat([batch.tokens for step in steps for batch in step or ()])


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


def test_epochs_become_iterations(data: Path) -> None:
    args = resolve_epochs(arguments(data, train_iters=None, train_epochs=2))
    # 50 documents of 40 tokens, twice, less one token, in samples of 8 and batches of 4.
    assert args.train_iters == (2 * 50 * 40 - 1) // SEQUENCE // 4
    assert resolve_epochs(arguments(data)).train_iters == 6
