"""The agent: starts the ranks of this machine, passes signals on to them, and says why the run ended. `python -m megatron.launcher.agent`

The first failing rank ends all, and its error is the last thing printed, once. SIGTERM and SIGINT reach every rank once, as SIGTERM; the ranks
save and exit by themselves, and only after the grace period are they killed. A second Ctrl-C kills them at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from megatron.environment import rank_defaults
from megatron.errors import NeoXError
from megatron.launcher.agent_options import AgentOptions, parse_agent_options
from megatron.launcher.devices import count_devices, restrict_devices
from megatron.launcher.failure import EXIT_INTERRUPTED, Failure, describe_failure
from megatron.launcher.ranks import Ranks
from megatron.launcher.worker import READY_VARIABLE
from megatron.log import keep_output_harmless


def main() -> None:
    """Run one machine's part of a job; exits with the status of the first failing rank, or 0."""
    options = parse_agent_options()
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
    """Run the ranks to their end and print why they failed, if they did; returns the exit status."""
    environment = rank_environment(options)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of this process; ranks keep their warnings
    os.environ["OMP_NUM_THREADS"] = "1"
    from megatron.launcher.node_agent import run_node  # takes a second: after the signal handlers are in place

    if ranks.stop_signal is None:
        run_node(options, ranks, environment=environment)
    return conclude(ranks, world_size=options.nodes * options.ranks)


def rank_environment(options: AgentOptions) -> dict[str, str]:
    """The environment all ranks of this machine have in common: ours, with the defaults for ranks where the user set none."""
    count = count_devices()
    restricted = restrict_devices(options.devices, count=count, environment=os.environ) if options.devices else {}
    defaults = rank_defaults(local_world_size=options.ranks, accelerators=count > 0)
    return {**os.environ, **defaults, **restricted, READY_VARIABLE: "1"}


def pass_signals_on(ranks: Ranks) -> None:
    """From now on signals to this process go to the ranks, which may not exist yet."""

    def on_stop(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and ranks.stop_signal == signal.SIGINT:
            ranks.abandon()
        ranks.stop(signal.SIGTERM if number == signal.SIGHUP else number)

    def on_notice(number: int, _: FrameType | None) -> None:
        ranks.forward(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asked to live on
            signal.signal(number, on_stop)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, on_notice)


def conclude(ranks: Ranks, *, world_size: int) -> int:
    """Print why the ranks did not succeed, if they did not, and return the exit status of the job."""
    if ranks.all_succeeded():
        return 0
    failure, stop = ranks.cause(), ranks.stop_signal
    if ranks.abandoned:
        sys.stderr.write("killed by a second SIGINT; what was done since the last checkpoint is lost\n")
        return 128 + signal.SIGINT
    if ranks.overdue:
        seconds = f"{ranks.grace_seconds:g} s of {signal.Signals(stop or 0).name}"
        sys.stderr.write(f"error: the ranks did not exit within {seconds} and were killed\n")
        return 128 + signal.SIGKILL
    if failure is None or (stop is not None and _died_of(stop, failure)):
        sys.stderr.write(f"stopped by {signal.Signals(stop or signal.SIGTERM).name}; nothing was saved\n")
        return 128 + (stop or signal.SIGTERM)
    sys.stderr.write(describe_failure(failure, world_size=world_size) + "\n")
    return failure.exit_status


def _died_of(stop: int, failure: Failure) -> bool:
    """Whether a rank ended because it had no handler (yet) for the signal that was meant to stop it."""
    return failure.record is None and failure.exit_code in (-stop, -signal.SIGTERM, EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
