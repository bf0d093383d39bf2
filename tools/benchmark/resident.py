"""The most memory a process held at once, as the operating system counts it: whatever took it, not tensors alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")
SAMPLE_SECONDS = 0.003


@dataclass
class Resident:
    """bytes: the most that was held inside the block beyond what was held at its beginning; known when it has ended."""

    bytes: int = 0


@contextlib.contextmanager
def resident_peak() -> Iterator[Resident]:
    """Measure the block. Linux alone; memory that was there before and is used for the first time inside counts as taken inside."""
    found = Resident()
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that was kept would hide what is taken next
    reset_high_water()
    before = resident()
    yield found
    found.bytes = max(0, high_water() - before)


@contextlib.contextmanager
def anonymous_peak() -> Iterator[Resident]:
    """As `resident_peak`, without pages of mapped files, which the operating system drops when it needs room; sampled, so a shorter peak may be missed."""
    found, ended = Resident(), threading.Event()
    before = _status("RssAnon")

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            found.bytes = max(found.bytes, _status("RssAnon") - before)

    sampling = threading.Thread(target=sample, daemon=True)
    sampling.start()
    try:
        yield found
    finally:
        ended.set()
        sampling.join()


def reset_high_water() -> None:
    """Let the high-water mark begin anew."""
    (PROCESS / "clear_refs").write_text("5", encoding="utf-8")


def high_water() -> int:
    """The most bytes that this process held at once since then."""
    return _status("VmHWM")


def resident() -> int:
    """Bytes that this process holds."""
    return _status("VmRSS")


def _status(field: str) -> int:
    line = re.search(rf"{field}:\s+(\d+) kB", (PROCESS / "status").read_text(encoding="utf-8"))
    assert line, f"/proc does not tell {field}"
    return int(line[1]) * 1024
