"""Jobs that a launcher refuses before anything starts, and programs that are not what they are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from megatron.errors import LaunchError, NeoXError
from megatron.launcher.launchers.programs import check_names, find_program
from megatron.neox_arguments.conflict import Conflict
from tests.unit.launcher.launchers.jobs import fake_program, job, launcher

OPEN_MPI = 'echo "mpirun (Open MPI) 4.1.4"; echo "Report bugs to http://www.open-mpi.org/community/help/"'
HYDRA = 'echo "HYDRA build details:"'
INTEL = 'echo "Intel(R) MPI Library for Linux* OS, Version 2021.19"'
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "h[1-2]"}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and an environment without a scheduler."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in (*SLURM, "SLURM_STEP_ID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "bin"


@pytest.mark.parametrize("name", ["pdsh", "openmpi", "mpich", "impi", "mvapich", "slurm", "jsrun"])
def test_a_missing_program_is_named_with_where_it_comes_from(name: str, programs: Path) -> None:
    with pytest.raises(Conflict, match=f'launcher {name} needs the program "') as caught:
        launcher(name).check(job())
    assert "choose another launcher" in caught.value.reason
    assert caught.value.keys == ("launcher",)


@pytest.mark.parametrize(
    ("name", "program", "answer", "wrong"),
    [
        ("openmpi", "mpirun", OPEN_MPI, HYDRA),
        ("openmpi", "mpirun.openmpi", 'echo "mpirun.openmpi (OpenRTE) 4.1.4 http://www.open-mpi.org/"', HYDRA),
        ("mpich", "mpiexec", HYDRA, OPEN_MPI),
        ("mpich", "mpiexec.hydra", HYDRA, INTEL),
        ("impi", "mpiexec.hydra", INTEL, HYDRA),
        ("mvapich", "mpiexec", HYDRA, OPEN_MPI),
    ],
)
def test_several_mpis_have_programs_of_one_name(
    name: str, program: str, answer: str, wrong: str, programs: Path
) -> None:
    fake_program(programs, program, answer)
    chosen = launcher(name)
    chosen.check(job())
    (command,) = chosen.commands(job())
    assert command.argv[0] == str(programs / program)
    fake_program(programs, program, wrong)
    with pytest.raises(Conflict):
        launcher(name).check(job())


def test_a_program_that_cannot_be_asked_is_none(programs: Path) -> None:
    fake_program(programs, "mpirun", "exit 1")
    assert find_program(["mpirun"], says="open-mpi.org") is None
    assert find_program(["mpirun"]) == str(programs / "mpirun")


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "h[1-2]", "a,b", "^hosts", "/n.*/", "a;b", "$(x)", "joe@"])
def test_names_that_are_patterns_or_options_are_refused(name: str) -> None:
    with pytest.raises(LaunchError, match="no name of a host"):
        check_names(job("h1", name), users=True, colons=True)


@pytest.mark.parametrize(
    ("name", "program", "answer", "users"),
    [("pdsh", "pdsh", "", True), ("openmpi", "mpirun", OPEN_MPI, False), ("mpich", "mpiexec", HYDRA, False)],
)
def test_launchers_refuse_names_that_their_programs_read_otherwise(
    name: str, program: str, answer: str, users: bool, programs: Path
) -> None:
    fake_program(programs, program, answer)
    fake_program(programs, "ssh")
    with pytest.raises(LaunchError, match="no name of a host"):
        launcher(name).check(job("h[1-2]"))
    if users:
        launcher(name).check(job("joe@h1"))
    else:
        with pytest.raises(LaunchError, match="cannot log in as somebody else"):
            launcher(name).check(job("joe@h1"))


def test_users_and_addresses_are_refused_where_they_mean_something_else() -> None:
    check_names(job("joe@h1", "fe80::1", "10.0.0.1", "a_b-c.d"), users=True, colons=True)
    with pytest.raises(LaunchError, match=re.escape('"Host h1" with "User joe" into ~/.ssh/config')):
        check_names(job("joe@h1"))
    with pytest.raises(LaunchError, match="give the host a name"):
        check_names(job("fe80::1"))


def test_a_script_that_is_not_here_is_refused(programs: Path) -> None:
    fake_program(programs, "pdsh")
    fake_program(programs, "ssh")
    launcher("pdsh").check(job())
    with pytest.raises(LaunchError, match=r'"nowhere\.py" does not exist'):
        launcher("pdsh").check(job(script="nowhere.py"))


def test_slurm_wants_an_allocation_that_has_the_hosts(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(programs, "srun")
    with pytest.raises(LaunchError, match=r"this shell is in none: .*sbatch"):
        launcher("slurm").check(job())
    for variable, value in SLURM.items():
        monkeypatch.setenv(variable, value)
    launcher("slurm").check(job())
    with pytest.raises(Conflict, match="h3 is not in the allocation 7, which has h1, h2"):
        launcher("slurm", hostfile="hosts").check(job("h1", "h3"))


def test_jsrun_chooses_the_first_hosts_of_the_allocation(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(programs, "jsrun")
    with pytest.raises(LaunchError, match="this shell is in none"):
        launcher("jsrun").check(job())
    monkeypatch.setenv("LSB_JOBID", "7")
    monkeypatch.setenv("LSB_MCPU_HOSTS", "batch5 1 h1 42 h2 42")
    launcher("jsrun").check(job("h1"))
    launcher("jsrun").check(job("h1", "h2"))
    with pytest.raises(Conflict, match="from the first on"):
        launcher("jsrun", exclude="h1").check(job("h2"))


def test_torchrun_starts_the_agent_of_this_machine_and_the_head_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"NNODES": "2", "MASTER_ADDR": "first", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(variable, value)
    for rank, holds_head in (("0", True), ("1", False)):
        monkeypatch.setenv("NODE_RANK", rank)
        chosen = launcher("torchrun")
        assert chosen.holds_head is holds_head
        place = chosen.head_place(job().hosts)
        assert (place.addresses, place.port) == (("first",), 1234)
        (command,) = chosen.commands(job())
        assert command.argv[command.argv.index("--node") + 1] == ("h1", "h2")[int(rank)]
        assert ("--conclude" in command.argv) is not holds_head
    with pytest.raises(NeoXError, match="was started on 2 machines, but the keys leave 1"):
        launcher("torchrun").check(job("node0"))


def test_machines_that_were_told_of_another_job_do_not_join_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def token(**told: str) -> str:
        given = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "h1", "MASTER_PORT": "29500"}
        for variable, value in {**given, **told}.items():
            monkeypatch.setenv(variable, value)
        return launcher("torchrun").head_place(job().hosts).token

    assert token() == token(NODE_RANK="1")
    assert len({token(), token(NNODES="3"), token(MASTER_ADDR="h2"), token(MASTER_PORT="29501")}) == 4
