"""How an attempt of a job ended: the exit status, the one text that tells why, and whether another attempt is worth it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from megatron.launcher.base import Host
from megatron.launcher.failure import Failure, describe_failure, first_cause
from megatron.launcher.head.nodes import Node
from megatron.stopping import STOPPED, status_of_signal


@dataclass(frozen=True)
class Outcome:
    """status: exit status of the job (megatron/stopping.py); text: lines for the user, empty when all went well.

    may_pass: whether the same thing may go well when it is tried again; lost: the machines that are gone; report: what a rank left for whoever
    started the job (REPORT_VARIABLE); restarts: how often the ranks have been started again so far.
    """

    status: int
    text: str = ""
    may_pass: bool = False
    lost: tuple[Host, ...] = ()
    report: str | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Stop:
    """Whether somebody has asked the job to stop.

    signal: with which signal; ours: it came to deepy.py, and not only to agents, which what started them may end in its own distress;
    grace_seconds, saves: as in Job.
    """

    signal: int | None
    grace_seconds: float
    saves: bool
    ours: bool = False


def judge(nodes: Sequence[Node], stop: Stop, *, trouble: str | None, now: float) -> Outcome:
    """What an attempt whose ranks have all ended comes to.

    trouble: why the head ended it, when no machine was lost and it was not a rank; now: our clock (seconds since the epoch).
    """
    report = next((text for node in nodes if (text := node.said("report")) is not None), None)
    if all(node.said("succeeded") for node in nodes):
        return Outcome(STOPPED if any(node.said("stopped") for node in nodes) else 0, report=report)
    if any(node.said("abandoned") for node in nodes):
        text = "killed by a second SIGINT; what was done since the last checkpoint is lost\n"
        return Outcome(status_of_signal(signal.SIGINT), text)
    lost = sorted((node for node in nodes if node.gone is not None), key=lambda node: node.gone_since)
    if lost:
        text = f"error: {lost[0].gone}\n"
        return Outcome(1, text, may_pass=not stop.ours, lost=tuple(node.host for node in lost))
    if any(node.said("overdue") for node in nodes):
        asked = signal.Signals(stop.signal or 0).name
        text = f"error: the ranks did not exit within {stop.grace_seconds:g} s of {asked} and were killed\n"
        return Outcome(status_of_signal(signal.SIGKILL), text)
    failures = [failure for node in nodes for failure in node.failures(now=now)]
    failure = first_cause(failures) if failures else None
    errors = [error for node in nodes if (error := node.said("error"))]
    if errors or trouble:
        return Outcome(1, f"error: {trouble or errors[0]}\n")
    return _end_of_ranks(failure, stop, world_size=sum(len(node.host.slots) for node in nodes))


def stopped_before(stop: Stop) -> Outcome:
    """A job that was asked to stop when no rank had been started."""
    return _end_of_ranks(None, stop, world_size=1)


def again(outcome: Outcome, restart: int, limit: int) -> str:
    """The line that tells of a restart, after what caused it."""
    cause = outcome.text.rstrip("\n")
    separator = "\n" if "\n" in cause else "; "
    return f"{cause}{separator}restart {restart} of {limit}\n"


def _end_of_ranks(failure: Failure | None, stop: Stop, *, world_size: int) -> Outcome:
    if failure is None or failure.polite_signal is not None:
        by = signal.Signals(stop.signal or (failure.polite_signal if failure else None) or signal.SIGTERM)
        text = f"stopped by {by.name}{' before training had begun' if stop.saves else '; nothing was saved'}\n"
        return Outcome(STOPPED if stop.saves else status_of_signal(by), text)
    text = describe_failure(failure, world_size=world_size) + "\n"
    return Outcome(failure.exit_status, text, may_pass=failure.may_pass and stop.signal is None)
