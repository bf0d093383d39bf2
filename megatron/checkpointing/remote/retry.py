"""Tries again what a store has refused, as stores do now and then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from megatron.errors import NeoXError
from megatron.log import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.5
"""The pause after the first failure; it doubles with each further one."""

_FINAL = (FileNotFoundError, PermissionError, FileExistsError, NeoXError, TypeError, ValueError, NotImplementedError)
"""Answers that stay as they are, however often one asks."""


def retried(action: Callable[[], T]) -> T:
    """What `action` returns, which is tried up to ATTEMPTS times with growing pauses. Raises its last error."""
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except _FINAL:
            raise
        except Exception as error:  # the libraries of stores have errors of their own
            pause = FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)
            logger.debug("attempt %d of %d failed (%s), the next one in %.1f s", attempt, ATTEMPTS, error, pause)
            time.sleep(pause)
    return action()
