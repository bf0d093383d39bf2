"""torch.compile takes every operation whole into its graph: forward and backward kernels, and nothing that runs beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, fx

from megatron.fused_kernels import dispatch
from tests.unit.fused_kernels.cases import SMALL, Case

FIRST = {case.operation: case for case in reversed(SMALL)}


class TracedError(Exception):
    """Instead of running what needs a GPU."""


@pytest.mark.parametrize("operation", dispatch.MODULES)
def test_it_is_one_graph_with_its_kernels(operation: str) -> None:
    graphs: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*_: Any) -> None:
            raise TracedError

        graphs.append(graph)
        return run

    torch.compiler.reset()
    # torch takes kernels for what they are where there is a GPU, and otherwise looks into Triton's launcher.
    with mock.patch("torch.utils._triton.has_triton", return_value=True), pytest.raises(TracedError):
        torch.compile(dispatch.fused(operation), fullgraph=True, backend=compiler)(**arguments(FIRST[operation]))
    (graph,) = graphs
    parts = [part for part in graph.modules() if isinstance(part, fx.GraphModule)]
    assert "triton_kernel_wrapper" in "".join(str(node.target) for part in parts for node in part.graph.nodes)


def arguments(case: Case) -> dict[str, Any]:
    return {
        name: value.float().requires_grad_(name not in case.constants)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in case.arguments().items()
    }
