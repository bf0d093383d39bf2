"""A program: every small case in Triton's interpreter, and whole models, compared on the CPU; a line of JSON for each case and type.

It is a process of its own because Triton decides when kernels are defined whether to interpret them, by TRITON_INTERPRET=1.
"""

from __future__ import annotations

import json
import traceback
from unittest import mock

import torch

from megatron.fused_kernels import dispatch, tiles
from megatron.model.spec import BuildContext
from tests.gpu.compare import FP32_LIMIT, furthest
from tests.unit.fused_kernels.cases import SMALL
from tests.unit.fused_kernels.comparing import TYPES, excesses
from tests.unit.fused_kernels.fused_model import MODELS, training_step


def main() -> None:
    torch.set_num_threads(1)
    tiles.PARTIAL_SUMS = 3  # so that programs have several tiles where rows are few
    for case in SMALL:
        for name, dtype in TYPES.items():
            try:
                found: dict[str, float] | str = excesses(case, dtype, torch.device("cpu"), truncates_bf16=True)
            except Exception:
                found = traceback.format_exc()
            print(json.dumps({"case": case.name, "type": name, "found": found}), flush=True)
    for model in MODELS:
        print(json.dumps({"case": model, "type": "fp32", "found": of_model(model)}), flush=True)


def of_model(name: str) -> dict[str, float] | str:
    """By which factor a model of kernels is further off than allowed, and in which tensor."""
    context = BuildContext(dtype=torch.float32)
    try:
        expected = training_step(name, context, fused=False)
        with mock.patch.object(dispatch, "_obstacle", return_value=None):
            found = training_step(name, context, fused=True)
        worst, where = furthest(found, expected)
    except Exception:
        return traceback.format_exc()
    return {where: worst / FP32_LIMIT}


if __name__ == "__main__":
    main()
