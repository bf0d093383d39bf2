"""A program: every kernel that the large cases launch, compiled for GPUs that need not be there; a line of JSON for each.

The cases run on torch's `meta` device, and launches are recorded instead of done: what is compiled is exactly what a GPU would be
asked for, with its block sizes and with Triton's own notes on arguments (which are 1, which are multiples of 16).
"""

from __future__ import annotations

import json
import re
import traceback
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from megatron.fused_kernels import dispatch
from tests.unit.fused_kernels.cases import LARGE, Case
from tests.unit.fused_kernels.comparing import TYPES, results

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
BINARIES = {"cuda": "cubin", "hip": "hsaco"}
NEWEST = ("sm_90", "gfx942")


class Launches:
    """Takes the place of Triton's own launch: notes kernels and arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[JITFunction[Any], tuple[Any, ...], dict[str, Any]]] = []
        JITFunction.run = lambda kernel, *values, grid, warmup, **named: self.seen.append((kernel, values, named))

    def of(self, case: Case, dtype: str) -> list[tuple[JITFunction[Any], tuple[Any, ...], dict[str, Any]]]:
        """What the forward and backward pass of a case launch."""
        self.seen.clear()
        with torch.device("meta"):
            results(dispatch.fused(case.operation), case, TYPES[dtype], torch.device("meta"))
        return list(self.seen)


def compiled(kernel: JITFunction[Any], target: GPUTarget, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The kernel as Triton would compile it for this launch on a device of this kind."""
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*values, **named, debug=False)
    options, signature, constants, attributes = kernel._pack_args(backend, named, bound, specialization, options)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options.__dict__)


def spilled(result: Any) -> int | None:
    """Registers that did not suffice, as far as the assembler says."""
    found = re.search(r"vgpr_spill_count: *(\d+)", result.asm.get("amdgcn", ""))
    return int(found[1]) if found else None


def main() -> None:
    launches = Launches()
    seen: set[str] = set()
    for case in LARGE:
        for dtype in TYPES:
            for kernel, values, named in launches.of(case, dtype):
                for name in targets_of(dtype, is_new=kernel.__name__ not in seen):
                    print(json.dumps(report(case, dtype, name, kernel, values, named)), flush=True)
        seen |= {kernel.__name__ for kernel, _, _ in launches.seen}


def targets_of(dtype: str, *, is_new: bool) -> tuple[str, ...]:
    """The newest of both vendors for every type, all for bf16; for a kernel that another case had, bf16 on one of them."""
    if is_new:
        return tuple(TARGETS) if dtype == "bf16" else NEWEST
    return NEWEST[:1] if dtype == "bf16" else ()


def report(
    case: Case, dtype: str, name: str, kernel: JITFunction[Any], values: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """What came of a kernel: the size of its binary, the shared memory that a program takes, or the error."""
    line = {"case": case.name, "kernel": kernel.__name__, "type": dtype, "target": name}
    try:
        result = compiled(kernel, TARGETS[name], values, named)
    except Exception:
        return line | {"error": traceback.format_exc()}
    binary = result.asm[BINARIES[TARGETS[name].backend]]
    return line | {"bytes": len(binary), "shared": result.metadata.shared, "spilled": spilled(result)}


if __name__ == "__main__":
    main()
