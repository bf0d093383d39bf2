"""In Triton's interpreter every kernel gives the values and gradients of plain torch, for sizes that no block divides."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.fused_kernels.dispatch import MODULES
from tests.unit.fused_kernels.cases import SMALL
from tests.unit.fused_kernels.children import lines_of
from tests.unit.fused_kernels.comparing import TYPES


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str], Any]:
    return {(line["case"], line["type"]): line["found"] for line in lines_of("interpreted", TRITON_INTERPRET="1")}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_values_and_gradients_are_those_of_plain_torch(
    case: Any, dtype: str, reports: dict[tuple[str, str], Any]
) -> None:
    found = reports[case.name, dtype]
    assert isinstance(found, dict), found
    assert max(found.values()) <= 1, found


def test_every_operation_is_tried() -> None:
    assert {case.operation for case in SMALL} == set(MODULES)
    assert len({case.name for case in SMALL}) == len(SMALL)
