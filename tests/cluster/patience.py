"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 20, what: str = "") -> float:
    """Wait until `condition()` is true, and return the seconds that took; AssertionError after `seconds`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"waited {seconds:g} s for {what or condition}"
        time.sleep(0.05)
    return time.monotonic() - begin
