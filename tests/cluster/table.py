"""What the launchers did on the cluster, as a page that is written by `make cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("launchers.md")
TRAIN, KILL, LOSE = SCENARIOS = ("train", "kill a rank", "lose a node")
PREAMBLE = """\
# Every launcher on two hosts

Written by `make cluster`. The hosts are namespaces on one machine, with sshd, Slurm and two MPIs in them. First the seconds until `deepy.py`
returned (in training from its start, else from the moment of the damage), then those until no host ran anything of the job.
train: 5 steps in 2 processes, whose losses are those of one host to the bit. kill a rank: SIGKILL on the other host. lose a node: the other
host's cable is pulled, node_timeout is {node_timeout:g} s. Two launchers are stood in for (`fakes`): MVAPICH's mpiexec by MPICH's, which is the
same Hydra, and jsrun and bsub by scripts that start processes over ssh with the same variables. Intel MPI is tried where I_MPI_ROOT has it.
torchrun is `deepy.py` on both hosts; torchrun-alone is `torchrun train.py`, whose own agents watch the ranks.

"""


@dataclass(frozen=True)
class Seconds:
    """How long a job took to end. returned: until deepy.py did; gone: until nothing of it ran on any host."""

    returned: float
    gone: float

    def __str__(self) -> str:
        return f"{self.returned:.1f} / {self.gone:.1f}"


Measured = dict[tuple[str, str], Seconds]
"""By launcher and scenario."""


def page(measured: Mapping[tuple[str, str], Seconds], node_timeout: float) -> str:
    """The page of what was measured, by launcher and scenario."""
    launchers = list(dict.fromkeys(launcher for launcher, _ in measured))
    rows = [("launcher", *SCENARIOS), ("---",) * (1 + len(SCENARIOS))]
    rows += [(name, *(str(measured.get((name, each), "")) for each in SCENARIOS)) for name in launchers]
    return PREAMBLE.format(node_timeout=node_timeout) + "".join(f"| {' | '.join(row)} |\n" for row in rows)
