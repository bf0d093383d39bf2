"""The run that goes on when machines are lost (`elastic`): fewer data-parallel ranks, more gradient accumulation, the same global batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.hosts.slots import choose_slots, count_slots
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import least_batch
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues, Origin

ORIGIN = Origin("elastic")
"""Where every changed value says that it comes from."""


@dataclass(frozen=True)
class SmallerRun:
    """values: of a config whose run needs all slots of `hosts`; note: what it changes, as the end of a sentence."""

    values: ConfigValues
    hosts: tuple[Host, ...]
    note: str


@dataclass(frozen=True)
class Division:
    """How a batch is divided: `copies` data-parallel ranks take `accumulation` micro-batches of `micro` samples each."""

    copies: int
    micro: int
    accumulation: int


def smaller_run(values: ConfigValues, first: NeoXArgs, hosts: Sequence[Host], left: Sequence[Host]) -> SmallerRun:
    """The run on the hosts that are left. values, first, hosts: of the first attempt, as it was configured.

    It has as many data-parallel ranks as fit (`divide_batch`), never more than at first; hosts are used in their order, and tensor
    ranks stay together on a machine where they can. Raises LaunchError when not even one copy of the model fits.
    """
    slots, copy = count_slots(left), first.global_num_gpus // first.data_parallel_size
    division = divide_batch(first, at_most=min(slots // copy, first.data_parallel_size)) if slots >= copy else None
    if division is None:
        raise LaunchError(_why_not(first, hosts, left))
    used = choose_slots(
        left, division.copies * copy, tensor=first.model_parallel_size, context=first.context_parallel_size
    )
    note = _note(first, division, hosts, used, idle=slots - count_slots(used))
    values, _ = modernise(values)
    if values.value("gradient_accumulation_steps") not in (None, division.accumulation):
        note += "; gradient_accumulation_steps is overridden"
    for key, value in _changes(values, first, division, used).items():
        if values.value(key) != value:
            values = values.with_value((key,), value, ORIGIN)
    return SmallerRun(values, used, note)


def divide_batch(first: NeoXArgs, *, at_most: int) -> Division | None:
    """The batch of the first attempt on up to `at_most` data-parallel ranks, exactly; None when no number of them will do.

    As many ranks as keep its micro-batch. A smaller micro-batch, which computes less at a time, is taken where it lets twice as many
    ranks work. With a ramp of batches, each of them is divided without remainder.
    """
    micro, least = first.train_micro_batch_size_per_gpu, least_batch(first)
    possible = [copies for copies in range(at_most, 0, -1) if least % copies == 0 and _suits_zero(first, copies)]
    if not possible:
        return None
    keeping = next((copies for copies in possible if least % (copies * micro) == 0), 0)
    copies = keeping if 2 * keeping > possible[0] else possible[0]
    micro = next(smaller for smaller in range(micro, 0, -1) if least % (copies * smaller) == 0)
    return Division(copies, micro, first.train_batch_size // (copies * micro))


def _suits_zero(first: NeoXArgs, copies: int) -> bool:
    """Whether the second group of ZeRO 3 (zero_hpz_partition_size) divides the processes."""
    processes = first.global_num_gpus // first.data_parallel_size * copies
    group = first.zero_optimization.get("zero_hpz_partition_size") or 1
    return processes % min(group, processes) == 0


def _changes(values: ConfigValues, first: NeoXArgs, division: Division, used: Sequence[Host]) -> dict[str, Any]:
    """New values by key. What says where a run goes changes only where it was written, but the launcher, which follows from the hosts."""
    slots = {len(host.slots) for host in used}
    where = {
        "batch_size": division.micro,
        "global_num_gpus": count_slots(used),
        "world_size": count_slots(used),
        "num_nodes": len(used),
        "num_gpus": max(slots) if len(slots) == 1 else None,
    }
    return {
        "train_batch_size": first.train_batch_size,
        "train_micro_batch_size_per_gpu": division.micro,
        "gradient_accumulation_steps": division.accumulation,
        "launcher": first.launcher,
        **{key: value for key, value in where.items() if values.value(key) is not None},
    }


def _note(first: NeoXArgs, division: Division, hosts: Sequence[Host], used: Sequence[Host], *, idle: int) -> str:
    sizes = {
        "data-parallel": (first.data_parallel_size, division.copies),
        "micro-batch": (first.train_micro_batch_size_per_gpu, division.micro),
        "gradient accumulation": (first.gradient_accumulation_steps, division.accumulation),
    }
    changed = [f"{name} {before} -> {now}" for name, (before, now) in sizes.items() if before != now]
    left_over = f"; {_plural(idle, 'slot')} left over" if idle else ""
    return (
        f"goes on with {_of(len(used), len(hosts), 'machine')}: {', '.join(changed) or 'all sizes stay'}; "
        f"the global batch stays {first.train_batch_size}{left_over}"
    )


def _why_not(first: NeoXArgs, hosts: Sequence[Host], left: Sequence[Host]) -> str:
    slots, copy = count_slots(left), first.global_num_gpus // first.data_parallel_size
    have = f"{_of(len(left), len(hosts), 'machine')} with {_plural(slots, 'slot')}"
    if slots < copy:
        sizes = {"tensor": first.model_parallel_size, "pipeline": first.pipeline_stages}
        sizes["context"] = first.context_parallel_size
        factors = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        return f"{have} left: one copy of the model needs {copy}{f' ({factors})' if factors else ''}"
    group = first.zero_optimization["zero_hpz_partition_size"]
    return f"{have} left: no number of processes on them is a multiple of the {copy} of one copy of the model and of zero_hpz_partition_size {group}"


def _of(count: int, total: int, noun: str) -> str:
    return f"{count} of {_plural(total, noun)}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
