"""How each launcher is used on the cluster of the tests, and what this machine lacks for it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.blocks import blocks
from tests.cluster.cluster import cluster, programs
from tests.cluster.hosts import Hosts
from tests.cluster.launches import Launch, launched
from tests.cluster.requirements import missing_program, obstacle

QUIET = {
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 32,
    "train_micro_batch_size_per_gpu": 2,
    "train_iters": 10,
    "tokenizer_type": "CharLevelTokenizer",
    "data_path": "nowhere",
    "num_gpus": 1,
}
"""A config for scripts that do not read it."""
NODE_TIMEOUT = 4.0
WAIT = Path(__file__).with_name("wait.py")
ON_EVERY_HOST = ("torchrun", "torchrun-alone")
"""Launchers whose block is typed on every host, with NODE_RANK set there."""
NODES = ("h1", "h2")
HOSTFILE = "".join(f"{name} slots=1\n" for name in NODES)


@dataclass(frozen=True)
class Way:
    """A launcher on hosts of its own."""

    launcher: str
    hosts: Hosts

    @contextlib.contextmanager
    def wait(
        self, directory: Path, *words: str, hostfile: str = HOSTFILE, block: str | None = None
    ) -> Iterator[Launch]:
        """A job of ranks that only wait; words: put behind those of the block."""
        with self.start(directory, QUIET, *words, script="wait.py", hostfile=hostfile, block=block) as job:
            yield job

    @contextlib.contextmanager
    def start(
        self,
        directory: Path,
        config: dict[str, object],
        *words: str,
        script: str = "train.py",
        hostfile: str = HOSTFILE,
        block: str | None = None,
    ) -> Iterator[Launch]:
        """A job of a config, in a directory that is made for it. block: what is typed, default README's."""
        directory.mkdir(parents=True)
        shutil.copy(WAIT, directory)
        (directory / "my.yml").write_text(yaml.safe_dump(config))
        (directory / "hosts").write_text(hostfile)
        block = (block or blocks()[self.launcher]).replace("train.py my.yml", " ".join([script, "my.yml", *words]))
        names = NODES if self.launcher in ON_EVERY_HOST else NODES[:1]
        fronts = {name: {"NODE_RANK": str(number)} for number, name in enumerate(names)}
        with launched(self.hosts, directory, block, fronts=fronts, path=programs(self.launcher, self.hosts)) as job:
            yield job


def why_not(launcher: str) -> str | None:
    """Why a launcher cannot be tried on this machine; None when it can."""
    return obstacle() or missing_program(launcher)


@contextlib.contextmanager
def way(launcher: str) -> Iterator[Way]:
    """Hosts for one launcher, while they run."""
    with cluster(slurm=launcher == "slurm") as hosts:
        yield Way(launcher, hosts)
