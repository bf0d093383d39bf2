"""tools/slurm: each script starts deepy.py as its head says, and puts the job back into the queue when it was cut short.

srun, scontrol and apptainer are stand-ins here that note how they were called.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unit.tools.fake_job import wait_for

FOLDER = REPOSITORY / "tools" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))

_PROGRAMS = {
    "python": """#!/usr/bin/env bash
echo "NODE_RANK=${NODE_RANK:-} NNODES=${NNODES:-} MASTER=${MASTER_ADDR:-}:${MASTER_PORT:-} $*" >> "$NOTES"
exit "${STATUS:-0}"
""",
    "waiting_python": """#!/usr/bin/env bash
trap 'echo USR1 >> "$NOTES"; exit 75' USR1
echo started >> "$NOTES"
for _ in {1..1000}; do sleep 0.01; done
""",
    "scontrol": """#!/usr/bin/env bash
if [[ $1 == show ]]; then printf 'worker-1\\nworker-2\\n'; else echo "scontrol $*" >> "$NOTES"; fi
""",
    "srun": """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "srun $1" >> "$NOTES"; shift; done
status=0
for number in 0 1; do SLURM_NODEID=$number "$@" || status=$?; done
exit "$status"
""",
    "apptainer": """#!/usr/bin/env bash
echo "apptainer $*" >> "$NOTES"
while (($#)) && [[ $1 != *.sif ]]; do shift; done
shift
exec "$@"
""",
}


class Machine:
    """A place with Slurm's programs, where a script runs as sbatch would run it."""

    def __init__(self, directory: Path) -> None:
        for name, text in _PROGRAMS.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        self._directory = directory
        self._notes = directory / "notes"
        self._notes.touch()

    def start(self, script: str, *words: str, python: str = "python", **variables: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PATH": f"{self._directory}:{os.environ['PATH']}",
            "NOTES": str(self._notes),
            "NEOX_PYTHON": str(self._directory / python),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_NODELIST": "worker-[1-2]",
            **variables,
        }
        return subprocess.Popen(["bash", str(FOLDER / script), *words], env=environment, cwd=REPOSITORY)

    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(("script", "launcher"), [("train.sbatch", "slurm"), ("single_node.sbatch", "local")])
@pytest.mark.parametrize(("status", "requeued"), [("0", False), ("75", True), ("1", False)])
def test_a_run_that_was_cut_short_goes_back_into_the_queue(
    machine: Machine, script: str, launcher: str, status: str, requeued: bool
) -> None:
    assert machine.start(script, "a.yml", "save=my runs", STATUS=status).wait(timeout=30) == int(status)
    started, *rest = machine.notes()
    assert started.endswith(f" deepy.py train.py a.yml save=my runs launcher={launcher}")
    assert rest == (["scontrol requeue 17"] if requeued else [])


def test_the_signal_before_the_end_reaches_a_run_on_a_single_machine(machine: Machine) -> None:
    script = machine.start("single_node.sbatch", "a.yml", python="waiting_python")
    wait_for(lambda: "started" in machine.notes())
    script.send_signal(signal.SIGUSR1)
    assert script.wait(timeout=30) == 75
    assert machine.notes() == ["started", "USR1", "scontrol requeue 17"]


def test_torchrun_starts_one_deepy_on_each_machine(machine: Machine) -> None:
    assert machine.start("torchrun.sbatch", "a.yml", STATUS="75").wait(timeout=30) == 75
    notes = machine.notes()
    assert [note for note in notes if "deepy.py" in note] == [
        f"NODE_RANK={number} NNODES=2 MASTER=worker-1:29500 deepy.py train.py a.yml launcher=torchrun"
        for number in (0, 1)
    ]
    assert {"srun --ntasks=2", "srun --ntasks-per-node=1"} <= set(notes)
    assert notes[-1] == "scontrol requeue 17"


def test_torchrun_in_apptainer(machine: Machine) -> None:
    assert machine.start("torchrun.sbatch", "a.yml", CONTAINER="/images/deepy-neox.sif").wait(timeout=30) == 0
    started = [note for note in machine.notes() if note.startswith("apptainer")]
    assert len(started) == 2
    assert all(f"--pwd {REPOSITORY}" in note and " /images/deepy-neox.sif bash -c " in note for note in started)


def test_torchrun_in_enroot(machine: Machine) -> None:
    assert machine.start("torchrun.sbatch", "a.yml", CONTAINER="registry#deepy-neox:cuda").wait(timeout=30) == 0
    assert "srun --container-image=registry#deepy-neox:cuda" in machine.notes()
    assert f"srun --container-workdir={REPOSITORY}" in machine.notes()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_says_what_a_long_run_needs(script: Path) -> None:
    """Options behind the first command would not be read."""
    head, _, commands = script.read_text().partition("\nset -euo pipefail\n")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", head, re.MULTILINE))
    assert "#SBATCH" not in commands
    assert options["signal"].removeprefix("B:") == "USR1@300"
    assert options["open-mode"] == "append"
    assert "requeue" in options
    assert "%j" in options["output"]
    places = set(re.findall(r"^##SBATCH --([\w-]+)=[A-Z]+$", head, re.MULTILINE))
    assert places == {"account", "partition", "qos", "comment"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_files_of_the_examples_exist(script: Path) -> None:
    named = re.findall(r"(?:configs|tools|containers)/[\w./-]+", script.read_text())
    assert named
    assert all((REPOSITORY / name).exists() for name in named)
