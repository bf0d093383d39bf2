"""How much work each step of this run is, so that its wall time becomes tokens and FLOPs per second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from megatron.engine.protocol import StepShape
from megatron.monitor.devices import device_name
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.sequence_schedule import sequence_schedule
from megatron.planning.hardware.devices import recognise
from megatron.planning.model.flops import hardware_flops_per_token, model_flops_per_token


@dataclass(frozen=True)
class StepWork:
    """The work of one step, all devices together; `shape` is what each engine is given of it."""

    shape: StepShape
    samples: int
    tokens: int
    model_flops: float
    hardware_flops: float


@dataclass(frozen=True)
class Speed:
    """work_of: the work of a step by its number, from 0; `peak`: FLOP/s of all devices, None if unknown."""

    work_of: Callable[[int], StepWork]
    peak: float | None
    device: torch.device

    def mfu(self, work: StepWork, seconds: float) -> float | None:
        """Model FLOPs utilisation of a step of this work that took `seconds`."""
        return None if self.peak is None else work.model_flops / seconds / self.peak


def build_speed(args: NeoXArgs, *, vocab_size: int, device: torch.device) -> Speed:
    """The work of the steps of this configuration."""
    peak = peak_flops_per_second(device, args.peak_theoretical_tflops)
    return Speed(
        work_of=work_of_steps(args, vocab_size=vocab_size),
        peak=None if peak is None else peak * args.global_num_gpus,
        device=device,
    )


def work_of_steps(args: NeoXArgs, *, vocab_size: int) -> Callable[[int], StepWork]:
    """The work of each step by its number. vocab_size: rows of the head."""
    batches, lengths = batch_schedule(args), sequence_schedule(args)
    row = args.train_micro_batch_size_per_gpu * args.data_parallel_size

    @cache
    def work(samples: int, length: int) -> StepWork:
        cut = args.model_copy(update={"seq_length": length})
        tokens = samples * length
        return StepWork(
            StepShape(samples // row, length),
            samples,
            tokens,
            model_flops=tokens * model_flops_per_token(cut, vocab_size=vocab_size),
            hardware_flops=tokens * hardware_flops_per_token(cut, vocab_size=vocab_size),
        )

    return lambda step: work(batches.batch_of(step), lengths.length_of(step))


def peak_flops_per_second(device: torch.device, configured_tflops: float | None) -> float | None:
    """`peak_theoretical_tflops` of the config, else the data sheet's value; None for a device that is not in the table."""
    if configured_tflops is not None:
        return configured_tflops * 1e12
    known = recognise(device_name(device))
    return None if known is None else known.peak_flops
