"""Loops in which every step needs the one before, at machine speed: numba translates them when they are first needed.

numba brings its own code generator, so no compiler has to be on the machine. Importing it and translating takes about a second, which
only large inputs are worth; the same function runs untranslated as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


@functools.cache
def compiled(function: Function) -> Function:
    """`function`, translated. It may use numbers, numpy arrays and loops; its numbers come out the same to the last bit."""
    import numba

    translated: Function = numba.njit(function)
    return translated
