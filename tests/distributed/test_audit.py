"""What the ledger says of a step is what the loaders of all ranks have read, in several layouts and across a change of batches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from megatron.data.audit.segment import Moves, open_segment
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.ledger.segments import LEDGER, Ledger
from megatron.initialize import World
from megatron.mpu.groups import build_process_groups
from megatron.mpu.topology import Topology
from megatron.neox_arguments import NeoXArgs
from megatron.training.run_data import open_data
from megatron.training.state import TrainState
from tests.worlds import run_world

STEPS = 3  # with each size of batches
BASE = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 16,
    "max_position_embeddings": 16,
    "train_iters": 2 * STEPS,
    "train_micro_batch_size_per_gpu": 2,
    "eval_iters": 1,
    "num_workers": 0,
}
CASES = [
    ({"model_parallel_size": 2}, Topology(data=2, tensor=2)),
    ({"pipe_parallel_size": 2, "pack_impl": "unpacked"}, Topology(pipe=2, data=2)),
    ({"pack_impl": "pack_until_overflow"}, Topology(data=4)),
]


def arguments(directory, keys, batch):
    paths = [str(directory / "a"), str(directory / "b")]
    data = {f"{part}_data_paths": paths for part in ("train", "valid", "test")} | {"train_data_weights": [3, 1]}
    return NeoXArgs.from_dict({**BASE, **data, **keys, "train_batch_size": batch}, world_size=4)


def read(rank, directory):
    """For each case what this rank read, by step and micro-batch, and the ledger on the first rank."""
    results = []
    for keys, topology in CASES:
        world = World(build_process_groups(topology), torch.device("cpu"))
        tokenizer = SimpleNamespace(vocab_size=4000, eod=0)
        state, ledger, steps = TrainState(), None, []
        for batch in (8, 16):
            args = arguments(directory, keys, batch)
            data = open_data(args, world, tokenizer, state, reads_data=True, before=ledger)
            for _ in range(STEPS):
                batches = next(data.batches)
                steps.append([torch.cat([one.tokens, one.labels[:, -1:]], dim=1).numpy() for one in batches])
                state = state.advance(samples=batch, tokens=batch * 16, skipped=False)
            written = [data.ledger.files(state)]
            torch.distributed.broadcast_object_list(written, src=0)
            ledger = Ledger.from_json(written[0][LEDGER])
        results.append((steps, ledger))
    return results


def write(prefix, first):
    generator = np.random.default_rng(first)
    with IndexedDatasetWriter(prefix, dtype="u2") as writer:
        for _ in range(60):
            writer.add_document(first + generator.integers(1, 1000, size=generator.integers(1, 40)))


def test_a_step_holds_what_all_ranks_read(tmp_path):
    write(tmp_path / "a", 0)
    write(tmp_path / "b", 2000)
    results = run_world(4, read, tmp_path)
    for case, (keys, topology) in enumerate(CASES):
        ledger = results[0][case][1]
        assert [steps for _, steps in ledger.stretches()] == [range(STEPS), range(STEPS, 2 * STEPS)]
        for number, (segment, steps) in enumerate(ledger.stretches()):
            audited = open_segment(arguments(tmp_path, keys, (8, 16)[number]), segment, steps, Moves())
            datasets = {source.dataset.prefix: source.dataset for source in audited.sources}
            for step in steps:
                samples = audited.samples_of(step)
                assert len(samples) == (8, 16)[number]
                for rank in range(4):
                    own = [one for one in samples if rank in audited.ranks_of(one.data_rank)]
                    rows = [(micro, row) for micro, rows in enumerate(results[rank][case][0][step]) for row in rows]
                    for one, (micro, row) in zip(own, rows, strict=True):
                        pieces = [datasets[p.prefix].get(p.document, p.offset, p.length) for p in one.pieces]
                        tokens = np.concatenate(pieces)
                        assert one.micro_batch == micro
                        assert np.array_equal(row[: len(tokens)], tokens)
                        assert not row[len(tokens) :].any()  # padding
        assert topology == segment.topology
