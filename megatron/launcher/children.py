"""Child processes that do not outlive us: how they are started, signalled and ended, for deepy.py (what starts agents) and the agent (ranks)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LAST_SECONDS = 5.0
"""Seconds for a process to go after SIGKILL: not even that ends one that hangs in a driver."""


def start_child(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    death_signal: signal.Signals,
    stdin: Any = None,
    outputs: tuple[Any, Any] = (None, None),
    held_back: Iterable[signal.Signals] = (),
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with exactly this environment.

    Its own session keeps a Ctrl-C on the terminal from reaching it directly, so that every signal reaches it once, through us.
    outputs: where its standard output and error go (None: where ours go). pass_fds: descriptors that it keeps open.
    death_signal: what the kernel sends it when this process dies, however it dies (Linux; elsewhere nothing is sent).
    held_back: signals that wait until it lets them come in, instead of ending it while its interpreter starts.
    """
    on_start = _die_with_parent(death_signal) if sys.platform == "linux" else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)  # a child begins with the mask of its parent
    try:
        return subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=stdin,
            stdout=outputs[0],
            stderr=outputs[1],
            start_new_session=True,
            preexec_fn=on_start,
            pass_fds=tuple(pass_fds),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def send_signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the child alone, not to its own children (a loader process must not die before its rank has saved)."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


def end_children(children: Iterable[subprocess.Popen[bytes]], *, patience: float) -> None:
    """End those still running: SIGTERM, after `patience` seconds SIGKILL; then SIGKILL to whatever they leave behind."""
    remaining = list(children)
    for child in remaining:
        if child.poll() is None:
            send_signal(child, signal.SIGTERM)
    deadline = time.monotonic() + patience
    for child in remaining:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
    kill_children(remaining)


def kill_children(children: Iterable[subprocess.Popen[bytes]]) -> None:
    """SIGKILL to the children and everything in their sessions' process groups, and wait until they are gone.

    All are killed before any is waited for, so that none lives to complain that another is gone.
    """
    doomed = list(children)
    for child in doomed:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    for child in doomed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=LAST_SECONDS)


class Orphans:
    """Processes that our children leave behind: from `adopt` to `end` they become ours, and none of them outlives that (on Linux).

    Other children that this process has had before are left alone.
    """

    def __init__(self) -> None:
        self._others: set[int] | None = None

    def adopt(self) -> None:
        """From now on."""
        if sys.platform == "linux":
            self._others = _children()
            _be_subreaper(True)

    def end(self) -> None:
        """SIGKILL to all of them. Children that were started in between must have been waited for."""
        if self._others is None:
            return
        deadline = time.monotonic() + LAST_SECONDS
        while (orphans := _children() - self._others) and time.monotonic() < deadline:
            for orphan in orphans:  # what it has started itself is ours once it is gone
                with contextlib.suppress(OSError):
                    os.kill(orphan, signal.SIGKILL)
                    os.waitpid(orphan, os.WNOHANG)
            time.sleep(0.01)
        _be_subreaper(False)
        self._others = None


def _children() -> set[int]:
    """The processes whose parent is this one."""
    import psutil  # type: ignore[import-untyped]  # costs the start of every job on one machine, which does not need it

    return {process.pid for process in psutil.Process().children()}


def _be_subreaper(yes: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes))


def _die_with_parent(death_signal: signal.Signals) -> Any:
    """A function for the new process that asks the kernel for `death_signal` when its parent dies."""
    library = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def on_start() -> None:
        library.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return on_start
