"""Every kernel compiles for NVIDIA's and AMD's GPUs, as it would be launched for a real model, and fits there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from triton.runtime.jit import JITFunction

from megatron.fused_kernels import dispatch
from tests.unit.fused_kernels.cases import LARGE
from tests.unit.fused_kernels.children import lines_of
from tests.unit.fused_kernels.comparing import TYPES
from tests.unit.fused_kernels.compiled import NEWEST, TARGETS

SHARED_MEMORY = 65_536  # bytes for a program: what AMD's GPUs have, the least of all


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return lines_of("compiled", TRITON_CACHE_DIR=str(Path(tmp_path_factory.mktemp("triton"))))


def test_all_compile_and_fit(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert "error" not in report, report["error"]
        assert report["bytes"] > 1000, report
        assert report["shared"] <= SHARED_MEMORY, report
        assert not report["spilled"], report


def test_no_kernel_type_or_target_is_left_out(reports: list[dict[str, Any]]) -> None:
    found = {(report["kernel"], report["type"], report["target"]) for report in reports}
    for kernel in kernels():
        assert {(kernel, "bf16", target) for target in TARGETS} <= found
        assert {(kernel, dtype, target) for dtype in TYPES for target in NEWEST} <= found


def test_every_operation_has_a_case_of_a_real_size() -> None:
    assert {case.operation for case in LARGE} == set(dispatch.MODULES)


def kernels() -> set[str]:
    """The names of all that can be launched: what returns nothing. The rest is a part of those."""
    modules = [importlib.import_module(f"megatron.fused_kernels.{module}") for module in set(dispatch.MODULES.values())]
    functions = [each for module in modules for each in vars(module).values() if isinstance(each, JITFunction)]
    return {each.__name__ for each in functions if each.fn.__annotations__["return"] == "None"}
