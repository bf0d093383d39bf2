"""Imports torch and what is built against it, and tells what it finds: one JSON object a line, each as soon as it is known.

Each library is announced before it is imported, so that one that takes the process down with it is known. `python -m megatron.doctor.children.torch_probe`
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from megatron.environment import rank_defaults
from megatron.launcher.devices import count_devices

BUILT_AGAINST_TORCH = ("triton", "deepspeed", "flash_attn", "flash_attn_interface", "transformer_engine")
"""Modules with parts that fit some versions of torch only: that they are installed does not say that they can be imported."""


def main() -> None:
    """Print what there is to tell. Whatever libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as told:
        os.dup2(2, 1)
        os.environ.update(rank_defaults(local_world_size=1, accelerators=count_devices() > 0))
        _tell(told, {"torch": describe_torch()})
        for name in BUILT_AGAINST_TORCH:
            if importlib.util.find_spec(name) is not None:
                _tell(told, {"importing": name})
                _tell(told, {name: import_problem(name)})


def describe_torch() -> Mapping[str, Any]:
    """Of this process's torch: see TorchFacts."""
    import torch
    import torch.distributed as dist

    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    properties = [torch.cuda.get_device_properties(index) for index in gpus]
    has_nccl = dist.is_available() and dist.is_nccl_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "rocm": torch.version.hip or "",
        "devices": [
            {
                "name": device.name,
                "memory_bytes": device.total_memory,
                "capability": [device.major, device.minor],
                "has_bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
            }
            for device in properties
        ],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl and torch.cuda.is_available() else "",
        "gloo": dist.is_available() and dist.is_gloo_available(),
    }


def import_problem(name: str) -> str:
    """Why a module cannot be imported; empty when it can."""
    try:
        importlib.import_module(name)
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[-1] if lines else ''}".strip()
    return ""


def _tell(told: TextIO, facts: Mapping[str, Any]) -> None:
    told.write(json.dumps(facts) + "\n")
    told.flush()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # what was imported may take long to leave, or crash
