"""What each launcher starts, word for word."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from megatron.components import LAUNCHERS
from megatron.launcher.agent import options
from megatron.launcher.agent.options import REPOSITORY, TOKEN_VARIABLE
from megatron.launcher.base import Command
from megatron.launcher.launchers import pdsh
from tests.unit.launcher.launchers.jobs import TOKEN, fake_program, job, launcher

AGENT = f"{sys.executable} -m megatron.launcher.agent --head 10.0.0.1:4711,192.168.0.1:4711"
EVERYWHERE = [name for name in LAUNCHERS.names if name not in ("local", "torchrun")]

LINES = {
    "pdsh": f"pdsh -R ssh -b -S -N -f 2 -w h1,h2 'cd / && NEOX_NODE_NUMBER=%n exec env PYTHONPATH={REPOSITORY} {TOKEN_VARIABLE}={TOKEN} "
    f"{AGENT} --number-from NEOX_NODE_NUMBER --node-timeout 20'",
    "openmpi": f"mpirun -np 2 --host h1,h2 --map-by seq --bind-to none --wdir / -x PYTHONPATH -x {TOKEN_VARIABLE} "
    f"{AGENT} --number-from OMPI_COMM_WORLD_RANK --node-timeout 20 --ends-parent",
    **dict.fromkeys(
        ("mpich", "impi", "mvapich"),
        f"mpiexec.hydra -hosts h1,h2 -ppn 1 -wdir / -n 2 {AGENT} --number-from PMI_RANK --node-timeout 20 --ends-parent",
    ),
    "slurm": "srun --nodes 2 --ntasks 2 --ntasks-per-node 1 --nodelist h1,h2 --overlap --mem 0 --cpu-bind none --kill-on-bad-exit=1 "
    "--quit-on-interrupt --input none --export ALL --chdir / "
    f"{AGENT} --node-from SLURMD_NODENAME --node-timeout 20",
    "jsrun": "jsrun --nrs 2 --rs_per_host 1 --tasks_per_rs 1 --cpu_per_rs ALL_CPUS --gpu_per_rs ALL_GPUS --bind none --chdir / "
    f"sh -c 'NEOX_NODE=$(hostname) exec {AGENT} --node-from NEOX_NODE --node-timeout 20'",
}


def only_command(name: str, *hosts: str, **keys: Any) -> Command:
    (command,) = launcher(name, **keys).commands(job(*hosts))
    return command


@pytest.mark.parametrize("name", EVERYWHERE)
def test_one_program_starts_an_agent_on_every_host(name: str) -> None:
    command = only_command(name)
    assert shlex.join(command.argv) == LINES[name]
    if name != "pdsh":  # whose ssh carries no variables
        assert command.environment.items() >= {"PYTHONPATH": str(REPOSITORY), TOKEN_VARIABLE: TOKEN}.items()
        assert TOKEN not in shlex.join(command.argv)  # every user of a machine sees command lines


@pytest.mark.parametrize("name", EVERYWHERE)
def test_arguments_of_the_user_come_behind_ours_and_before_the_agent(name: str) -> None:
    for given in ("--one 'two words'", ("--one", "two words"), {name: "--one 'two words'", "other": "--three"}):
        words = only_command(name, launcher_args=given).argv
        place = words.index("--one")
        assert words[place + 1] == "two words"
        assert "--three" not in words
        assert not any("megatron.launcher.agent" in word for word in words[:place])
    assert only_command(name, launcher_args={"other": "--three"}).argv == only_command(name).argv
    assert "8" in only_command(name, launcher_args={name: ["--one", 8]}).argv


@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_line_of_many_hosts_fits_into_one_command(name: str) -> None:
    names = [f"rack{number // 40:02}-node{number:04}.cluster.example.org" for number in range(1000)]
    assert max(len(word) for word in only_command(name, *names).argv) < 2**17  # Linux takes no longer word


def test_pdsh_asks_all_hosts_at_once_in_the_ways_that_their_names_need() -> None:
    words = only_command("pdsh", "h1", "joe@h2", "fe80::1", "h4").argv
    assert words[words.index("-w") + 1] == "h1,joe@h2,ssh:fe80::1,h4"
    assert words[words.index("-f") + 1] == "4"


def test_pdsh_is_ended_by_the_signal_that_ends_its_ssh_too() -> None:
    assert only_command("pdsh").end_signal is signal.SIGINT


def test_any_directory_reaches_the_other_side_of_pdsh(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    odd = tmp_path / '100% %h it\'s $HOME "here" ;'
    program = fake_program(odd, "python", 'printf "%s\\n" "$0" "$PYTHONPATH" "$NEOX_NODE_NUMBER" "$PWD" "$@"')
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(options, "REPOSITORY", odd)
    line = pdsh.remote_line(job())
    sent = line.replace("%%", "\0").replace("%n", "1").replace("%h", "h2").replace("\0", "%")  # what pdsh does
    printed = subprocess.run(["sh", "-c", sent], capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed[:4] == [str(program), str(odd), "1", "/"]
    assert printed[4:6] == ["-m", "megatron.launcher.agent"]


def test_no_mpi_binds_the_agents_to_cores() -> None:
    assert "none" in only_command("openmpi").argv
    assert only_command("impi").environment["I_MPI_PIN"] == "0"
    assert only_command("mvapich").environment["MV2_ENABLE_AFFINITY"] == "0"


def test_open_mpi_is_told_that_root_means_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert only_command("openmpi").environment["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in only_command("openmpi").environment


def test_only_srun_is_asked_to_end_when_machines_are_lost() -> None:
    assert [name for name in EVERYWHERE if only_command(name).reports] == ["slurm"]


def test_srun_charges_and_notes_what_the_keys_say() -> None:
    words = only_command("slurm", account="physics", comment="a b").argv
    assert words[words.index("--account") + 1] == "physics"
    assert words[words.index("--comment") + 1] == "a b"


def test_srun_hears_nothing_of_the_shares_of_tasks() -> None:
    unset = only_command("slurm").without
    assert {"SLURM_GPUS_PER_TASK", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_NTASKS_PER_NODE"} <= set(unset)
    assert "SLURM_JOB_ID" not in unset


@pytest.mark.parametrize("name", ["openmpi", "mpich", "impi", "mvapich"])
def test_mpi_programs_need_ssh_outside_allocations_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID"):
        monkeypatch.delenv(variable, raising=False)
    assert launcher(name).needs_ssh
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not launcher(name).needs_ssh
