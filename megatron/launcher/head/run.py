"""Runs a job: opens the head's port, starts the launcher's commands, and begins anew on other machines when some are lost."""

from __future__ import annotations

import secrets
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from megatron.errors import LaunchError, NeoXError
from megatron.launcher.addresses import LOOPBACK
from megatron.launcher.base import Job, Launcher
from megatron.launcher.head.head import Head, History
from megatron.launcher.head.outcome import Outcome, Stop, again, stopped_before
from megatron.launcher.head.programs import Programs
from megatron.launcher.hosts.reachable import unreachable
from megatron.launcher.process import STOPS, signals_to


@dataclass(frozen=True)
class Attempt:
    """A job and what starts it. notes: lines that say what is different from the attempt before; tries_ssh: whether to try the hosts first."""

    job: Job
    launcher: Launcher
    notes: tuple[str, ...] = ()
    tries_ssh: bool = True


def run_job(first: Attempt, *, following: Callable[[Collection[str]], Attempt]) -> Outcome:
    """Run a job to its end, good or bad, and tell why it ended.

    following: the attempt after one that lost machines, from the names of all that were lost so far; it raises NeoXError when there is none. One that is tried
    again does not count as lost any more.
    """
    history = History(job=uuid.uuid4().hex, began=time.monotonic())
    runner = _Runner()
    lost: list[str] = []
    attempt = first
    with signals_to(runner.on_signal, ignored=ignored_by(first.job)):
        while True:
            outcome = runner.run(attempt, history)
            lost += [host.name for host in outcome.lost if host.name not in lost]
            tries_again = outcome.may_pass and outcome.lost and outcome.restarts < first.job.max_restarts
            if not tries_again:
                sys.stderr.write(outcome.text)
                return outcome
            history = replace(history, restarts=outcome.restarts + 1)
            try:
                attempt = following(lost)
            except NeoXError as error:
                sys.stderr.write(f"{outcome.text}error: {error}\n")
                return outcome
            lost = [name for name in lost if name not in {host.name for host in attempt.job.hosts}]
            sys.stderr.write(again(outcome, history.restarts, first.job.max_restarts))
            sys.stderr.write("".join(f"{note}\n" for note in attempt.notes))


def run_attempt(job: Job, launcher: Launcher, *, tries_ssh: bool = True) -> Outcome:
    """Run a job once, without telling why it ended. tries_ssh: whether to try the hosts first."""
    runner = _Runner()
    with signals_to(runner.on_signal, ignored=ignored_by(job)):
        attempt = Attempt(job, launcher, tries_ssh=tries_ssh)
        return runner.run(attempt, History(job=uuid.uuid4().hex, began=time.monotonic()))


def ignored_by(job: Job) -> tuple[signal.Signals, ...]:
    """Ctrl-Z, where a person talks with the ranks: it would stop only this process, and they would go on reading what is typed for the shell."""
    return (signal.SIGTSTP,) if job.interactive else ()


class _Runner:
    """Passes signals to the head of the attempt that runs, if one does."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._early: int | None = None

    def on_signal(self, number: int) -> None:
        """A signal came to this process."""
        if self._head is not None:
            self._head.on_signal(number)
        if number in STOPS:
            self._early = self._early or number

    def run(self, attempt: Attempt, history: History) -> Outcome:
        """One attempt. Signals that came between two of them end the job."""
        job = attempt.job
        closed = self._try_hosts(attempt)
        if closed is not None:
            return replace(closed, restarts=history.restarts)
        if self._early is not None:
            stop = Stop(self._early, job.grace_seconds, job.saves, ours=True)
            return replace(stopped_before(stop), restarts=history.restarts)
        with open_head(job) as listener:
            job = place_head(job, listener)
            self._head = Head(job, listener, Programs(attempt.launcher.commands(job)), history)
            if self._early is not None:
                self._head.on_signal(self._early)
            try:
                return self._head.run()
            finally:
                self._head = None

    def _try_hosts(self, attempt: Attempt) -> Outcome | None:
        """What is to be told when hosts do not let us in."""
        if not (attempt.launcher.needs_ssh and attempt.tries_ssh):
            return None
        reasons = unreachable(attempt.job.hosts)
        if not reasons:
            return None
        lost = tuple(host for host in attempt.job.hosts if host.name in reasons)
        first, *others = reasons.items()
        more = "".join(f"; {name}: {reason}" for name, reason in others)
        text = (
            f"error: {first[0]} cannot be reached by ssh ({first[1]}){more}: each host must let this user in without a password "
            "(no_ssh_check: true skips this test)\n"
        )
        return Outcome(1, text, may_pass=self._early is None, lost=lost)


def open_head(job: Job) -> socket.socket:
    """The socket on which the head of a job waits for agents: on the port of `job.head`, or any; on this machine alone when the job is."""
    address = LOOPBACK if job.head.addresses == (LOOPBACK,) else ""
    try:
        return socket.create_server((address, job.head.port), backlog=4096)
    except OSError as error:
        raise LaunchError(
            f"port {job.head.port}, where the machines of the job are to connect, cannot be opened ({error.strerror}): choose another "
            "master_port on all of them"
        ) from None


def place_head(job: Job, listener: socket.socket) -> Job:
    """The job with what its agents need to find this head."""
    head = job.head
    port = int(listener.getsockname()[1])
    return replace(job, head=replace(head, port=port, token=head.token or secrets.token_hex(16)))
