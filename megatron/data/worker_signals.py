"""Signals and loader workers: a worker ends when its owner says so, not when someone signals the whole process group.

Ctrl-C and many launchers signal every process of a job at once. A training process then finishes its step and saves a checkpoint; its
loader workers must not die under it meanwhile. And a worker that does die is reported where the next batch is asked for, instead of by
an exception in the middle of whatever the process is doing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


def obey_owner_only(_worker: int) -> None:
    """Called in a new worker process: ignore SIGINT and SIGUSR1, and obey SIGTERM only from the parent process."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: the sender cannot be told
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_owner, args=(os.getppid(),), daemon=True).start()


@contextlib.contextmanager
def keep_child_handler() -> Iterator[None]:
    """Put the SIGCHLD handler back when the block ends: PyTorch installs one that raises wherever the process happens to be."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    previous = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if previous is None else previous)


def _wait_for_owner(owner: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != owner:
        pass
    os._exit(0)
