"""A run that goes on with fewer machines is the same run: the same batches, on fewer data-parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.elastic import ORIGIN, SmallerRun, smaller_run
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.reading.values import ConfigValues
from tests.unit.neox_arguments.minimal import MINIMAL

MODEL = {**MINIMAL, "num_attention_heads": 8, "max_restarts": 3, "save": "checkpoints", "elastic": True}
EVEN = [4, 4, 4, 4]


def hosts(*slots: int) -> tuple[Host, ...]:
    return tuple(Host(f"h{number}", tuple(range(count))) for number, count in enumerate(slots))


def shrink(slots: Sequence[int], lost: int, **keys: Any) -> tuple[NeoXArgs, SmallerRun, NeoXArgs]:
    """The arguments of a run on these machines, how it goes on without the first `lost`, and its arguments then."""
    config = {key: value for key, value in {**MODEL, **keys}.items() if value is not None}
    values, machines = ConfigValues.from_dict(config), hosts(*slots)
    first = NeoXArgs.from_values(values, world_size=sum(slots))
    smaller = smaller_run(values, first, machines, machines[lost:])
    return first, smaller, NeoXArgs.from_values(smaller.values, world_size=sum(map(len_of, smaller.hosts)))


def len_of(host: Host) -> int:
    return len(host.slots)


def sizes(args: NeoXArgs) -> tuple[int, int, int, int]:
    return (
        args.train_batch_size,
        args.data_parallel_size,
        args.train_micro_batch_size_per_gpu,
        args.gradient_accumulation_steps,
    )


def test_half_the_machines_accumulate_twice_as_long() -> None:
    first, smaller, args = shrink(EVEN, 2, train_batch_size=256)
    assert (sizes(first), sizes(args)) == ((256, 16, 2, 8), (256, 8, 2, 16))
    assert smaller.hosts == hosts(*EVEN)[2:]
    assert smaller.note == (
        "goes on with 2 of 4 machines: data-parallel 16 -> 8, gradient accumulation 8 -> 16; the global batch stays 256"
    )


def test_ranks_that_do_not_divide_the_batch_are_left_over() -> None:
    _, smaller, args = shrink(EVEN, 1, train_batch_size=64)
    assert sizes(args) == (64, 8, 2, 4)
    assert smaller.hosts == hosts(*EVEN)[1:3]
    assert smaller.note.endswith("the global batch stays 64; 4 slots left over")


def test_small_spares_together_never_make_more_ranks_than_at_first() -> None:
    values = ConfigValues.from_dict({**MODEL, "train_batch_size": 32})
    first = NeoXArgs.from_values(values, world_size=4)
    smaller = smaller_run(values, first, hosts(2, 2), [hosts(2)[0], *(Host(name, (0,)) for name in "abcdef")])
    assert sum(map(len_of, smaller.hosts)) == 4
    assert smaller.note.endswith("the global batch stays 32; 4 slots left over")


def test_a_batch_that_was_never_written_is_that_of_the_first_attempt() -> None:
    first, smaller, args = shrink(EVEN, 3)
    assert (sizes(first), sizes(args)) == ((32, 16, 2, 1), (32, 4, 2, 4))
    assert smaller.values.origin("train_batch_size") == ORIGIN


def test_a_smaller_micro_batch_is_taken_only_where_twice_as_many_ranks_work() -> None:
    _, smaller, args = shrink([1, 1, 1], 1, train_batch_size=12, train_micro_batch_size_per_gpu=4)
    assert sizes(args) == (12, 2, 3, 2), "not 1 rank of 4 samples"
    assert "data-parallel 3 -> 2, micro-batch 4 -> 3, gradient accumulation 1 -> 2;" in smaller.note
    _, _, args = shrink([1] * 12, 4, train_batch_size=96, train_micro_batch_size_per_gpu=8)
    assert sizes(args) == (96, 6, 8, 2), "not 8 ranks of 4 samples"


@pytest.mark.parametrize("key", ["train_micro_batch_size_per_gpu", "batch_size"])
def test_written_sizes_of_the_first_attempt_give_way(key: str) -> None:
    written = {"gradient_accumulation_steps": 2, "global_num_gpus": 3, "world_size": 3, "num_nodes": 3, "num_gpus": 1}
    config = {**written, "train_batch_size": 24, "train_micro_batch_size_per_gpu": None, key: 4}
    first, smaller, args = shrink([1, 1, 1], 1, **config)
    assert (sizes(first), sizes(args)) == ((24, 3, 4, 2), (24, 2, 4, 3))
    assert (args.num_nodes, args.num_gpus, args.world_size) == (2, 1, 2)
    assert smaller.note.endswith("the global batch stays 24; gradient_accumulation_steps is overridden")


def test_what_says_where_a_run_goes_is_not_invented() -> None:
    _, smaller, args = shrink(EVEN, 2)
    assert not {"num_nodes", "num_gpus", "global_num_gpus", "world_size", "batch_size"} & smaller.values.values.keys()
    assert args.launcher == "local"


def test_the_launcher_stays_though_one_machine_is_left() -> None:
    values = ConfigValues.from_dict({**MODEL, "include": "h0@h1"})
    first = NeoXArgs.from_values(values, world_size=2, planning=True)
    smaller = smaller_run(values, first, hosts(1, 1), hosts(1))
    assert smaller.values.value("launcher") == first.launcher == "pdsh"


def test_older_spellings_are_understood() -> None:
    _, _, args = shrink(
        [1, 1], 1, **{"train_micro_batch_size_per_gpu": None, "batch-size": 2, "model-parallel-size": 1}
    )
    assert sizes(args) == (4, 1, 2, 2)


def test_every_batch_of_a_ramp_divides_over_the_ranks() -> None:
    first, _, args = shrink([1] * 6, 2, train_batch_size=72, rampup_batch_size=[12, 12, 400])
    assert sizes(args) == (72, 3, 2, 12), "4 ranks of 2 samples would not do for 12 of them"
    assert batch_schedule(args) == batch_schedule(first)


def test_the_second_group_of_zero_3_divides_the_ranks() -> None:
    zero = {"stage": 3, "zero_hpz_partition_size": 4}
    _, _, args = shrink(EVEN, 1, train_batch_size=96, zero_optimization=zero)
    assert args.global_num_gpus == 12
    _, _, args = shrink([2] * 8, 3, train_batch_size=160, zero_optimization=zero)
    assert args.global_num_gpus == 8, "not 10"


@pytest.mark.parametrize(
    ("slots", "lost", "keys", "said"),
    [
        (
            [1, 1],
            1,
            {"model_parallel_size": 2},
            "1 of 2 machines with 1 slot left: one copy of the model needs 2 (tensor 2)",
        ),
        (
            [2, 2],
            1,
            {"model_parallel_size": 2, "pipe_parallel_size": 2},
            "1 of 2 machines with 2 slots left: one copy of the model needs 4 (tensor 2 x pipeline 2)",
        ),
        (
            [6, 6],
            1,
            {
                "model_parallel_size": 2,
                "num_layers": 6,
                "context_parallel_size": 2,
                "zero_optimization": {"stage": 3, "zero_hpz_partition_size": 3},
            },
            "1 of 2 machines with 6 slots left: no number of processes on them is a multiple of the 4 of one copy of the model "
            "and of zero_hpz_partition_size 3",
        ),
    ],
)
def test_what_cannot_go_on_says_why(slots: list[int], lost: int, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        shrink(slots, lost, **keys)
    assert str(caught.value) == said


layouts = st.fixed_dictionaries(
    {
        "tensor": st.sampled_from([1, 2, 4]),
        "pipe": st.sampled_from([0, 1, 2, 4]),
        "context": st.sampled_from([1, 2]),
        "zero": st.integers(0, 3),
        "micro": st.integers(1, 9),
        "accumulation": st.integers(1, 12),
        "slots": st.sampled_from([1, 2, 4, 8, 12]),
        "nodes": st.integers(2, 12),
        "ramp": st.booleans(),
        "lost": st.sets(st.integers(0, 11), min_size=1, max_size=8),
        "written": st.sets(
            st.sampled_from(
                ["train_batch_size", "gradient_accumulation_steps", "global_num_gpus", "num_nodes", "num_gpus"]
            )
        ),
    }
)


@given(layouts)
def test_every_smaller_run_is_the_same_run(each: dict[str, Any]) -> None:
    machines = hosts(*[each["slots"]] * each["nodes"])
    copy, world = each["tensor"] * max(each["pipe"], 1) * each["context"], each["slots"] * each["nodes"]
    if world % copy or (each["zero"] > 1 and each["pipe"] > 1):
        return
    row = world // copy * each["micro"]
    sizes_written = {
        "train_batch_size": row * each["accumulation"],
        "gradient_accumulation_steps": each["accumulation"],
        "global_num_gpus": world,
        "num_nodes": each["nodes"],
        "num_gpus": each["slots"],
    }
    config = {
        **MODEL,
        "train_micro_batch_size_per_gpu": each["micro"],
        "model_parallel_size": each["tensor"],
        "pipe_parallel_size": each["pipe"],
        "context_parallel_size": each["context"],
        "zero_optimization": {"stage": each["zero"]},
        **({"rampup_batch_size": [row, row, 40 * row]} if each["ramp"] else {}),
        **{key: sizes_written[key] for key in each["written"] - {"num_nodes"}},
    }
    values = ConfigValues.from_dict(config)
    first = NeoXArgs.from_values(values, world_size=world)
    left = [host for number, host in enumerate(machines) if number not in each["lost"]]
    if sum(map(len_of, left)) < copy:
        with pytest.raises(LaunchError, match="one copy of the model needs"):
            smaller_run(values, first, machines, left)
        return
    smaller = smaller_run(values, first, machines, left)
    used = sum(map(len_of, smaller.hosts))
    args = NeoXArgs.from_values(smaller.values, world_size=used)
    parallel = [args.model_parallel_size, args.pipe_parallel_size, args.context_parallel_size]
    assert parallel == [first.model_parallel_size, first.pipe_parallel_size, first.context_parallel_size]
    assert args.data_parallel_size * copy == used <= sum(map(len_of, left))
    assert args.data_parallel_size <= first.data_parallel_size
    assert args.train_micro_batch_size_per_gpu <= first.train_micro_batch_size_per_gpu
    assert math.prod(sizes(args)[1:]) == args.train_batch_size == first.train_batch_size
    assert batch_schedule(args) == batch_schedule(first)
    assert args.seq_length == first.seq_length
    by_name = {host.name: host for host in left}
    assert all(host.slots == by_name[host.name].slots[: len_of(host)] for host in smaller.hosts)
    if each["slots"] % each["tensor"] == 0:
        assert all(len_of(host) % each["tensor"] == 0 for host in smaller.hosts)
    assert args.model_dump(exclude=CHANGED) == first.model_dump(exclude=CHANGED)


CHANGED = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "global_num_gpus",
    "world_size",
    "num_nodes",
    "num_gpus",
}
