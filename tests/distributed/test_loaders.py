"""Loaders in a world of ranks: one reads, all receive, and the layout does not change what a step contains."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from megatron.data import datasets as datasets_module
from megatron.data.batch import DocumentRules
from megatron.data.datasets import build_datasets
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.mpu.groups import build_process_groups
from megatron.mpu.topology import Topology
from tests.unit.data.test_datasets import DEFAULTS
from tests.worlds import run_world

RULES = DocumentRules(0, mask_loss=True, reset_positions=True, reset_attention=True)


class Unreadable:
    """Fails the test when a rank that should receive reads instead."""

    def __len__(self):
        return 1000

    def __getitem__(self, i):
        raise AssertionError(f"sample {i} was read")

    def source_of(self, i):
        return "nowhere"


def arguments(directory):
    return SimpleNamespace(**DEFAULTS | {"data_path": str(directory / "a"), "split": "8,1,1"})


def load(rank, directory, topology, micro_batch, num_workers):
    """All micro-batches of 3 steps of 8 samples on this rank."""
    groups = build_process_groups(topology)
    dataset = build_datasets(
        arguments(directory), train_samples=64, valid_samples=8, test_samples=8, world=groups.world
    ).train
    if groups.tensor.rank > 0:
        dataset = Unreadable()
    plan = BatchPlan.constant(micro_batch, 8 // micro_batch // topology.data, topology.data, groups.data.rank)
    options = {"num_workers": num_workers, "tensor_group": groups.tensor, "dropout_seed": 1}
    loader = StepLoader(dataset, plan, vocab_size=300, steps=3, rules=RULES, **options)
    return [[{name: value.numpy() for name, value in vars(batch).items()} for batch in step] for step in loader]


def write(directory):
    with IndexedDatasetWriter(directory / "a", dtype="u2") as writer:
        for first in range(100):
            writer.add_document([*range(first, first + 12), 0])


def cases(rank, directory):
    one = load(rank, directory, Topology(tensor=2), 4, 0), load(rank, directory, Topology(tensor=2), 4, 1)
    return one, load(rank, directory, Topology(data=2), 2, 0)


def test_tensor_ranks_receive_what_the_first_read_and_data_ranks_share_the_step(tmp_path):
    write(tmp_path)
    first, second = run_world(2, cases, tmp_path)
    for ours, theirs in zip(first[0], second[0], strict=True):
        for step, received in zip(ours, theirs, strict=True):
            for batch, other in zip(step, received, strict=True):
                assert all(np.array_equal(batch[name], other[name]) for name in batch)
    # The same 8 samples in each step: 2 micro-batches of 4 in one layout, 2 ranks x 2 micro-batches of 2 in the other.
    for step, on_rank_0, on_rank_1 in zip(first[0][0], first[1], second[1], strict=True):
        rows = np.concatenate([batch["tokens"] for batch in step])
        in_order = [on_rank_0[0], on_rank_1[0], on_rank_0[1], on_rank_1[1]]
        assert np.array_equal(rows, np.concatenate([batch["tokens"] for batch in in_order]))
        keys = np.concatenate([batch["dropout_keys"] for batch in step])
        assert np.array_equal(keys, np.concatenate([batch["dropout_keys"] for batch in in_order]))
        assert not all(batch["loss_mask"].all() for batch in step)


def build_counted(rank, directories, local_ranks, use_shared_fs):
    """How many index maps this rank computed, the others waiting for the first."""
    from megatron.data.maps import index_maps

    built = []
    build = index_maps.plan_index_maps

    def counted(*arguments, **settings):
        built.append(settings)
        return build(*arguments, **settings)

    index_maps.plan_index_maps = counted
    groups = build_process_groups(Topology(data=len(directories)))
    args = SimpleNamespace(**vars(arguments(directories[rank])) | {"use_shared_fs": use_shared_fs})
    samples = {"train_samples": 8, "valid_samples": 8, "test_samples": 8}
    datasets = datasets_module.build_datasets(args, **samples, world=groups.world, local_rank=local_ranks[rank])
    return len(built), datasets.train[3].tolist()


def test_only_the_first_rank_builds_the_caches(tmp_path):
    write(tmp_path)
    assert [built for built, _ in run_world(2, build_counted, [tmp_path] * 2, [0, 1], True)] == [3, 0]


def test_without_a_shared_file_system_the_first_rank_of_each_machine_builds(tmp_path):
    """Two machines of two ranks, each machine with its own copy of the data."""
    machines = [tmp_path / "one", tmp_path / "other"]
    for machine in machines:
        machine.mkdir()
        write(machine)
    results = run_world(4, build_counted, [machines[0]] * 2 + [machines[1]] * 2, [0, 1, 0, 1], False)
    assert [built for built, _ in results] == [3, 0, 3, 0]
    assert all(sample == results[0][1] for _, sample in results)
    assert [len(list(machine.glob("*.npy"))) for machine in machines] == [9, 9]
    # Without it, data that machines do not share is right as well, only no longer built by one rank a machine.
    for path in machines[1].glob("*.npy"):
        path.unlink()
    results = run_world(4, build_counted, [machines[0]] * 2 + [machines[1]] * 2, [0, 1, 0, 1], True)
    assert [built for built, _ in results][:2] == [0, 0]
    assert all(sample == results[0][1] for _, sample in results)
