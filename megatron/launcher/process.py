"""The process of deepy.py while a job runs: which signals it listens to, and what its children inherit."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType

from megatron.stopping import POLITE_SIGNALS

POLL_SECONDS = 0.05

STOPS = (*POLITE_SIGNALS, signal.SIGHUP)
LISTENED_TO = (*STOPS, signal.SIGUSR2)


def with_paths(environment: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `added`; a PYTHONPATH is put before the one that is there."""
    merged = {**environment, **added}
    if "PYTHONPATH" in added and environment.get("PYTHONPATH"):
        merged["PYTHONPATH"] = os.pathsep.join([added["PYTHONPATH"], environment["PYTHONPATH"]])
    return merged


@contextlib.contextmanager
def signals_to(receiver: Callable[[int], None], *, ignored: Iterable[signal.Signals] = ()) -> Iterator[None]:
    """Within it, `receiver` is called with the number of every signal that comes; a SIGHUP that `nohup` ignores stays ignored.

    ignored: signals that do nothing meanwhile.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        receiver(number)

    numbers = [
        number for number in LISTENED_TO if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    previous |= {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
