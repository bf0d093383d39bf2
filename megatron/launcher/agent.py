"""The agent: starts the ranks of this machine, passes signals on to them, and says why the run ended. `python -m megatron.launcher.agent`

The first failing rank ends all, and its error is the last thing printed, once; after a crash they may be started again (`restarts.py`).
SIGTERM, SIGINT and SIGUSR1 reach every rank once, as SIGTERM; the ranks save and exit by themselves with 75 (`megatron.stopping`), and only
after the grace period are they killed. Ranks that have not begun yet have nothing to save and end at once. A second Ctrl-C kills them all.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from megatron.environment import note_start, rank_defaults
from megatron.errors import LaunchError, NeoXError
from megatron.launcher.agent_options import AgentOptions, parse_agent_options
from megatron.launcher.devices import count_devices, restrict_devices
from megatron.launcher.failure import describe_failure
from megatron.launcher.ranks import Ranks
from megatron.launcher.worker import READY_VARIABLE
from megatron.log import keep_output_harmless
from megatron.stopping import POLITE_SIGNALS, STOPPED, status_of_signal


def main() -> None:
    """Run one machine's part of a job; exits with the status of the first failing rank, or 75, or 0 (`megatron.stopping`)."""
    options = parse_agent_options()
    note_start(anew=True)
    keep_output_harmless()  # the exit status must arrive even where the reason cannot be told
    ranks = Ranks(grace_seconds=options.grace_seconds)
    pass_signals_on(ranks)
    try:
        status = run_agent(options, ranks)
    except NeoXError as error:
        sys.stderr.write(f"error: {error}\n")
        status = 1
    finally:
        ranks.kill_if_running()
        ranks.close()
    sys.exit(status)


def run_agent(options: AgentOptions, ranks: Ranks) -> int:
    """Run the ranks to their end and print why they failed, if they did; returns the exit status. Raises LaunchError."""
    if options.max_restarts and options.nodes > 1:
        raise LaunchError(
            f'"max_restarts" is {options.max_restarts} and the job has {options.nodes} machines: ranks are started again on one machine only; '
            "set it to 0 and let the scheduler start the whole job again"
        )
    environment = rank_environment(options)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of this process; ranks keep their warnings
    os.environ["OMP_NUM_THREADS"] = "1"
    if ranks.stop_signal is None:
        from megatron.launcher.node_agent import run_node  # takes a second: after the signal handlers are in place

        if ranks.stop_signal is None:
            run_node(options, ranks, environment=environment)
    return conclude(ranks, world_size=options.nodes * options.ranks, saves=options.saves)


def rank_environment(options: AgentOptions) -> dict[str, str]:
    """The environment all ranks of this machine have in common: ours, with the defaults for ranks where the user set none."""
    count = count_devices()
    restricted = restrict_devices(options.devices, count=count, environment=os.environ) if options.devices else {}
    defaults = rank_defaults(local_world_size=options.ranks, accelerators=count > 0)
    return {**os.environ, **defaults, **restricted, READY_VARIABLE: "1"}


def pass_signals_on(ranks: Ranks) -> None:
    """From now on signals to this process go to the ranks, which may not exist yet."""

    interrupted = False

    def on_stop(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        if number == signal.SIGINT and interrupted:
            ranks.abandon()
        interrupted |= number == signal.SIGINT
        ranks.stop(signal.SIGTERM if number == signal.SIGHUP else number)

    def on_notice(number: int, _: FrameType | None) -> None:
        ranks.forward(number)

    for number in (*POLITE_SIGNALS, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asked to live on
            signal.signal(number, on_stop)
    signal.signal(signal.SIGUSR2, on_notice)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*POLITE_SIGNALS, signal.SIGHUP))  # deepy.py has them wait until now


def conclude(ranks: Ranks, *, world_size: int, saves: bool = False) -> int:
    """Print why the ranks did not succeed, if they did not, and return the exit status of the job. saves: as in `Job`."""
    if ranks.all_succeeded():
        return STOPPED if ranks.any_stopped() else 0
    failure, stop = ranks.cause(), ranks.stop_signal
    if ranks.abandoned:
        sys.stderr.write("killed by a second SIGINT; what was done since the last checkpoint is lost\n")
        return status_of_signal(signal.SIGINT)
    if ranks.overdue:
        seconds = f"{ranks.grace_seconds:g} s of {signal.Signals(stop or 0).name}"
        sys.stderr.write(f"error: the ranks did not exit within {seconds} and were killed\n")
        return status_of_signal(signal.SIGKILL)
    if failure is None or failure.polite_signal is not None:
        by = signal.Signals(stop or (failure.polite_signal if failure else None) or signal.SIGTERM)
        sys.stderr.write(f"stopped by {by.name}{' before training had begun' if saves else '; nothing was saved'}\n")
        return STOPPED if saves else status_of_signal(by)
    sys.stderr.write(describe_failure(failure, world_size=world_size) + "\n")
    return failure.exit_status


if __name__ == "__main__":
    main()
