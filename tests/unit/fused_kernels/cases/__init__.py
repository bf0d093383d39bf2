"""Calls of every operation that has a fused form: small and awkward ones (SMALL), and ones of a real model's size (LARGE)."""

from tests.unit.fused_kernels.cases import elementwise, rows
from tests.unit.fused_kernels.cases.case import Case as Case

SMALL: list[Case] = [*elementwise.SMALL, *rows.SMALL]
LARGE: list[Case] = [*elementwise.LARGE, *rows.LARGE]
