"""The jobs of the doctor: as those of a run, through the same launcher, with a script of its own in place of train.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.launcher.base import Host, Job, Launcher
from megatron.launcher.forwarding import remote_environment
from megatron.launcher.head.outcome import Outcome
from megatron.launcher.head.run import run_attempt
from megatron.neox_arguments.keys.runner import RunnerArgs
from megatron.stopping import POLITE_SIGNALS, status_of_signal

CHILDREN = Path(__file__).resolve().parents[1] / "children"
GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class Clinic:
    """Where jobs are examined: the launcher keys of the config, and the launcher that they name."""

    args: RunnerArgs
    launcher: Launcher

    def addresses(self, hosts: Sequence[Host]) -> tuple[str, ...]:
        """Of this machine, with which those hosts may reach it."""
        return self.launcher.head_place(hosts).addresses

    def job(self, script: str, hosts: Sequence[Host], environment: Mapping[str, str]) -> Job:
        """A job that runs one of our children on each slot of the hosts."""
        forwarded = remote_environment(os.environ, self.args.forward_environment)[0] if self.launcher.forwards else {}
        return Job(
            str(CHILDREN / script),
            (),
            tuple(hosts),
            directory=os.getcwd(),
            head=self.launcher.head_place(hosts),
            master_addr=self.args.master_addr,
            master_port=self.args.master_port,
            environment={**forwarded, **environment},
            grace_seconds=GRACE_SECONDS,
            node_timeout=self.args.node_timeout,
        )

    def run(self, script: str, hosts: Sequence[Host], environment: Mapping[str, str]) -> Outcome:
        """Run such a job to its end. Raises LaunchError when it cannot be started, KeyboardInterrupt when Ctrl-C ended it, and SystemExit when
        another signal did that asks to stop.
        """
        job = self.job(script, hosts, environment)
        self.launcher.check(job)
        outcome = run_attempt(job, self.launcher, tries_ssh=False)
        if outcome.status == status_of_signal(signal.SIGINT):
            raise KeyboardInterrupt
        if outcome.status in map(status_of_signal, (*POLITE_SIGNALS, signal.SIGHUP)):
            raise SystemExit(outcome.status)
        return outcome


def reason_of(outcome: Outcome) -> str:
    """Why a job failed, without the word before it."""
    return outcome.text.strip().removeprefix("error: ") or f"the job ended with status {outcome.status}"
