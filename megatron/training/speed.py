"""How much work one step of this run is, so that its wall time becomes tokens and FLOPs per second."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from megatron.monitor.devices import device_name
from megatron.neox_arguments import NeoXArgs
from megatron.planning.hardware.devices import recognise
from megatron.planning.model.flops import hardware_flops_per_token, model_flops_per_token


@dataclass(frozen=True)
class Speed:
    """The work of one step over the global batch, all devices together; `peak`: FLOP/s of all devices, None if unknown."""

    tokens_per_step: int
    model_flops_per_step: float
    hardware_flops_per_step: float
    peak: float | None
    device: torch.device

    def mfu(self, seconds: float) -> float | None:
        """Model FLOPs utilisation of a step that took `seconds`."""
        return None if self.peak is None else self.model_flops_per_step / seconds / self.peak


def build_speed(args: NeoXArgs, *, vocab_size: int, device: torch.device) -> Speed:
    """The work of one step of this configuration."""
    tokens = args.train_batch_size * args.seq_length
    peak = peak_flops_per_second(device, args.peak_theoretical_tflops)
    return Speed(
        tokens_per_step=tokens,
        model_flops_per_step=tokens * model_flops_per_token(args, vocab_size=vocab_size),
        hardware_flops_per_step=tokens * hardware_flops_per_token(args, vocab_size=vocab_size),
        peak=None if peak is None else peak * args.global_num_gpus,
        device=device,
    )


def peak_flops_per_second(device: torch.device, configured_tflops: float | None) -> float | None:
    """`peak_theoretical_tflops` of the config, else the data sheet's value; None for a device that is not in the table."""
    if configured_tflops is not None:
        return configured_tflops * 1e12
    known = recognise(device_name(device))
    return None if known is None else known.peak_flops
