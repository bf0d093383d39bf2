"""Loaders: the batches of each step, resumed anywhere, read by worker processes that behave."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch

from megatron.data.gpt_dataset import build_gpt_dataset
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.loaders import StepLoader, _is_death_of_worker
from megatron.data.samplers import BatchPlan
from megatron.errors import DataError
from megatron.mpu.groups import SINGLE, Group

PLAN = BatchPlan.constant(2, accumulation=2)


class Counting:
    """Sample i is i * 10, i * 10 + 1, ... i * 10 + 4."""

    def __init__(self, samples=40, token=None):
        self.samples = samples
        self.token = token

    def __len__(self):
        return self.samples

    def __getitem__(self, i):
        if self.token is not None and i == 6:
            return np.full(5, self.token)
        return np.arange(i * 10, i * 10 + 5)

    def source_of(self, i):
        return f"source of {i}"


def tensors_of(batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


def first_tokens(steps):
    """The number of each sample, by step and micro-batch."""
    return [[(batch.tokens[:, 0] // 10).tolist() for batch in step] for step in steps]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_step_gives_its_samples_and_every_iteration_starts_over(num_workers):
    loader = StepLoader(Counting(), PLAN, vocab_size=1000, steps=3, num_workers=num_workers)
    expected = [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    assert first_tokens(loader) == expected
    assert first_tokens(itertools.islice(loader, 2)) == expected[:2]  # abandoned before its end
    assert first_tokens(loader) == expected


def test_a_resumed_loader_gives_the_same_batches():
    whole = list(StepLoader(Counting(), PLAN, vocab_size=1000, steps=8))
    resumed = list(StepLoader(Counting(), PLAN, vocab_size=1000, start_step=5, steps=3))
    assert len(resumed) == 3
    for old, new in zip(whole[5:], resumed, strict=True):
        for old_batch, new_batch in zip(old, new, strict=True):
            assert all(torch.equal(getattr(old_batch, name), value) for name, value in tensors_of(new_batch).items())


def test_ranks_read_their_own_slices():
    for rank, expected in ((0, [[0, 1], [4, 5]]), (1, [[2, 3], [6, 7]])):
        loader = StepLoader(Counting(), BatchPlan.constant(2, 2, 2, rank), vocab_size=1000, steps=1)
        assert first_tokens(loader) == [expected]


def keys_of(plan, seed=1, start=0, group=SINGLE):
    """The key of each sample of steps 0 to 3, by its number."""
    steps = list(StepLoader(
        Counting(), plan, vocab_size=1000, start_step=start, steps=4 - start, dropout_seed=seed, context_group=group
    ))  # fmt: skip
    assert all(batch.dropout_keys.shape == (len(batch.tokens),) for step in steps for batch in step)
    return {
        int(sample): int(key)
        for step in steps
        for batch in step
        for sample, key in zip(batch.tokens[:, 0] // 10, batch.dropout_keys, strict=True)
    }


def test_keys_of_dropout_belong_to_samples_and_steps_in_every_layout():
    keys = keys_of(BatchPlan.constant(4))
    assert len(set(keys.values())) == len(keys) == 16
    assert keys_of(BatchPlan.constant(2, accumulation=2)) == keys
    ranks = [keys_of(BatchPlan.constant(1, 2, 2, rank)) for rank in range(2)]
    assert ranks[0] | ranks[1] == keys
    assert keys_of(BatchPlan.constant(4), group=Group(0, 2, (0, 1))) == keys
    assert keys_of(BatchPlan.constant(4), start=2).items() <= keys.items()
    assert not set(keys_of(BatchPlan.constant(4), seed=2).values()) & set(keys.values())


def test_a_sample_that_comes_again_has_another_key():
    steps = list(StepLoader(Counting(samples=4), PLAN, vocab_size=1000, steps=2, wrap=True, dropout_seed=1))
    assert first_tokens(steps[:1]) == first_tokens(steps[1:])
    keys = [batch.dropout_keys for step in steps for batch in step]
    assert len(set(torch.cat(keys).tolist())) == 8


def test_without_dropout_there_are_no_keys():
    (batch, _), *_ = StepLoader(Counting(), PLAN, vocab_size=1000, steps=1)
    assert batch.dropout_keys is None


def test_a_dataset_that_is_too_short_is_an_error_only_when_its_end_is_reached():
    steps = iter(StepLoader(Counting(samples=11), PLAN, vocab_size=1000))
    assert first_tokens([next(steps), next(steps)]) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    with pytest.raises(DataError, match="has 11 samples, enough for 2 steps"):
        next(steps)
    assert len(list(StepLoader(Counting(samples=11), PLAN, vocab_size=1000, steps=2))) == 2


def test_an_evaluation_may_wrap_around():
    loader = StepLoader(Counting(samples=6), PLAN, vocab_size=1000, steps=2, wrap=True)
    assert first_tokens(loader) == [[[0, 1], [2, 3]], [[4, 5], [0, 1]]]


@pytest.mark.parametrize("token", [500, -1])
def test_ids_outside_the_vocabulary_name_their_source(token):
    loader = StepLoader(Counting(token=token), PLAN, vocab_size=500, start_step=1, steps=1)
    with pytest.raises(
        DataError, match=f"source of 6 contains the token id {token}, but the vocabulary has 500 entries"
    ):
        list(loader)


def test_ranks_that_need_no_data_get_none_and_read_nothing():
    class Unreadable(Counting):
        def __getitem__(self, i):
            raise AssertionError("read")

    assert list(StepLoader(Unreadable(), PLAN, vocab_size=1000, steps=3, reads_data=False)) == [None] * 3


def test_reading_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(StepLoader(Counting(), PLAN, vocab_size=1000, steps=2, num_workers=1))
    assert torch.equal(torch.rand(1), expected)


def workers_of(loader):
    return loader._loader._iterator._workers


def test_workers_survive_signals_to_the_whole_group_and_end_with_their_owner():
    """A sender that is not the owner (here: a forked child) cannot stop the workers; the owner can."""
    loader = StepLoader(Counting(), PLAN, vocab_size=1000, steps=9, num_workers=2)
    steps = iter(loader)
    next(steps), next(steps)  # one from each worker
    workers = workers_of(loader)
    child = os.fork()
    if child == 0:
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGUSR1)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.2)
    assert all(worker.is_alive() for worker in workers)
    assert len(list(steps)) == 7
    for worker in workers:
        worker.terminate()
        worker.join(timeout=5)
    assert not any(worker.is_alive() for worker in workers)


def test_a_worker_that_dies_is_an_error_where_the_next_batch_is_asked_for():
    before = signal.getsignal(signal.SIGCHLD)
    loader = StepLoader(Counting(samples=4000), PLAN, vocab_size=10**6, num_workers=1)
    steps = iter(loader)
    next(steps)
    assert signal.getsignal(signal.SIGCHLD) == before
    os.kill(workers_of(loader)[0].pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r'a process that reads data has died .* Lower "num_workers"'):
        list(steps)


def test_an_error_that_a_worker_sent_is_not_taken_for_its_death():
    assert not _is_death_of_worker(OSError("Caught OSError in DataLoader worker process 0.\nOriginal Traceback"))
    assert not _is_death_of_worker(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))
    assert _is_death_of_worker(RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"))
    assert _is_death_of_worker(ConnectionResetError(104, "Connection reset by peer"))


def test_real_datasets_travel_to_workers_by_path(tmp_path):
    with IndexedDatasetWriter(tmp_path / "a", dtype="u2") as writer:
        for first in range(50):
            writer.add_document(range(first, first + 20))
    dataset = build_gpt_dataset(
        IndexedDataset(tmp_path / "a"), range(50), part="train", seq_length=8, num_samples=100, seed=0
    )
    assert len(pickle.dumps(dataset)) < 2000
    in_process, in_workers = (
        list(StepLoader(dataset, PLAN, vocab_size=100, steps=6, num_workers=workers)) for workers in (0, 2)
    )
    for one, other in zip(in_process, in_workers, strict=True):
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, other, strict=True))
