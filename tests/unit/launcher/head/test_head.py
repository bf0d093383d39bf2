"""The head with real agents: two of them on this machine, which pretend to be two machines."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.launcher.agent.options import TOKEN_VARIABLE, agent_argv, agent_environment
from megatron.launcher.base import Command, HeadPlace, Host, Job
from megatron.launcher.head.outcome import Outcome
from megatron.launcher.head.run import Attempt, run_attempt, run_job
from megatron.stopping import STOPPED

HOSTS = (Host("a", (0,)), Host("b", (0, 1)))

SCRIPT = """
import os, signal, sys, time
folder, rank = sys.argv[2], int(os.environ["RANK"])
def write(name):
    open(f"{folder}/{name}.{rank}", "w").write(os.environ.get("PLACE", "") + " ".join(os.environ[name] for name in NAMES))
def save(number, frame):
    write("saved")
    sys.exit(75)
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"{folder}/pid.{rank}", "w").write(str(os.getpid()))
write("started")
while sum(name.startswith("started") for name in os.listdir(folder)) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
if sys.argv[1] == "wait" or sys.argv[1] == "deaf":
    for _ in range(1200): time.sleep(0.05)
if sys.argv[1] == "crash" and rank == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "crash" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    for _ in range(1200): time.sleep(0.05)
"""


class Pretended:
    """A launcher whose hosts are all this machine. without: hosts whose agent is not started; extra: environment of agents by host."""

    needs_ssh = False
    forwards = False
    holds_head = True

    def __init__(self, *, without: tuple[str, ...] = (), path: dict[str, str] | None = None, names=None) -> None:
        self.without, self.path, self.names = without, path or {}, names or {}

    def check(self, job: Job) -> None: ...

    def commands(self, job: Job) -> list[Command]:
        commands = []
        for host in job.hosts:
            environment = agent_environment(job) | ({"PATH": self.path[host.name]} if host.name in self.path else {})
            argv = agent_argv(job, node=self.names.get(host.name, host.name))
            if host.name in self.without:
                argv = (sys.executable, "-c", "import sys; sys.exit(255)")
            commands.append(Command(argv, environment))
        return commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "out").mkdir()
    return tmp_path


def job(folder: Path, mode: str = "succeed", **changes) -> Job:
    job = Job(
        str(folder / "script.py"),
        (mode, str(folder / "out")),
        HOSTS,
        directory=str(folder),
        head=HeadPlace(("127.0.0.1",)),
        environment={"PLACE": "here "},
        log_dir=str(folder / "logs"),
        grace_seconds=20.0,
    )
    return dataclasses.replace(job, **changes)


def written(folder: Path, name: str) -> list[str]:
    return [(folder / "out" / f"{name}.{rank}").read_text() for rank in range(3)]


def pids(folder: Path) -> list[int]:
    return [int(file.read_text()) for file in (folder / "out").glob("pid.*")]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def when_started(folder: Path, action: Callable[[], None]) -> None:
    """Do something as soon as all ranks have started."""

    def wait() -> None:
        end = time.monotonic() + 30
        while len(list((folder / "out").glob("started.*"))) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        action()

    threading.Thread(target=wait, daemon=True).start()


@pytest.fixture(autouse=True)
def nothing_is_left(folder: Path) -> Iterator[None]:
    yield
    end = time.monotonic() + 10
    while any(map(is_running, pids(folder))):
        assert time.monotonic() < end, "ranks are left"
        time.sleep(0.02)


def test_ranks_are_numbered_in_the_order_of_the_machines_and_meet_at_the_first(folder):
    outcome = run_attempt(job(folder), Pretended())
    assert outcome == Outcome(0)
    places = [line.split() for line in written(folder, "started")]
    assert [place[:6] for place in places] == [
        ["here", "0", "0", "3", "1", "0"],
        ["here", "1", "0", "3", "2", "1"],
        ["here", "2", "1", "3", "2", "1"],
    ]
    assert {place[6] for place in places} == {"127.0.0.1"}
    assert len({place[7] for place in places}) == 1
    assert sorted(file.name for file in (folder / "logs").iterdir()) == [f"rank_{rank}.log" for rank in range(3)]


def test_a_killed_rank_ends_all_machines_and_is_named_with_its_own(folder):
    begin = time.monotonic()
    outcome = run_attempt(job(folder, "crash"), Pretended())
    assert time.monotonic() - begin < 10
    assert (outcome.status, outcome.may_pass, outcome.lost) == (137, True, ())
    assert outcome.text.startswith("error: rank 2 on b was killed by signal 9 (SIGKILL)")
    assert outcome.text.count("\n") == 1


def test_ranks_that_crashed_are_started_again_by_the_same_agents(folder, capsys):
    outcome = run_attempt(job(folder, "crash", max_restarts=1), Pretended())
    assert (outcome.status, outcome.restarts) == (0, 1)
    assert capsys.readouterr().err.endswith("; restart 1 of 1\n")
    assert {line.split()[-1] for line in written(folder, "started")} == {"1"}
    assert "restart 1 of 1" in (folder / "logs" / "rank_1.log").read_text()


def test_an_agent_that_is_killed_takes_its_ranks_along_and_its_machine_counts_as_lost(folder):
    when_started(folder, lambda: os.kill(parent(int((folder / "out/pid.1").read_text())), signal.SIGKILL))
    outcome = run_attempt(job(folder, "wait"), Pretended())
    assert (
        outcome.text
        == "error: the agent on b (ranks 1 to 2) ended without a word: it was killed, or its machine went down\n"
    )
    assert (outcome.status, outcome.lost, outcome.may_pass) == (1, (HOSTS[1],), True)


def test_a_machine_that_falls_silent_is_lost_after_its_time(folder):
    def freeze() -> None:
        agent = parent(int((folder / "out/pid.1").read_text()))
        os.kill(agent, signal.SIGSTOP)
        frozen.append(agent)

    frozen: list[int] = []
    when_started(folder, freeze)
    begin = time.monotonic()
    outcome = run_attempt(job(folder, "wait", node_timeout=3.0), Pretended())
    assert time.monotonic() - begin < 12
    assert outcome.text.startswith(
        "error: b (ranks 1 to 2) has not been heard for 3 s: the machine or its network is down"
    )
    assert outcome.lost == (HOSTS[1],)
    assert not any(map(is_running, frozen))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_deepy_reaches_the_ranks_of_all_machines(folder, number):
    when_started(folder, lambda: os.kill(os.getpid(), number))
    assert run_attempt(job(folder, "wait"), Pretended()).status == STOPPED
    assert len(written(folder, "saved")) == 3


def test_a_signal_to_one_agent_reaches_the_ranks_of_all_machines(folder):
    when_started(folder, lambda: os.kill(parent(int((folder / "out/pid.1").read_text())), signal.SIGTERM))
    assert run_attempt(job(folder, "wait"), Pretended()).status == STOPPED
    assert len(written(folder, "saved")) == 3


def test_ranks_that_do_not_listen_are_killed_after_their_time(folder):
    when_started(folder, lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = run_attempt(job(folder, "deaf", grace_seconds=0.5), Pretended())
    assert outcome.text == "error: the ranks did not exit within 0.5 s of SIGTERM and were killed\n"
    assert outcome.status == 137


def test_a_machine_whose_agent_does_not_start_is_named(folder):
    outcome = run_attempt(job(folder), Pretended(without=("b",)))
    assert outcome.text.startswith("error: b (ranks 1 to 2) has not started its agent, and ")
    assert "ended with status 255" in outcome.text
    assert outcome.lost == (HOSTS[1],)
    assert not pids(folder)


def test_a_machine_with_too_few_accelerators_is_refused_before_anything_runs(folder):
    for name, count in {"two": 2, "one": 1}.items():
        (folder / name).mkdir()
        listing = "".join(f"GPU {index}: X\\n" for index in range(count))
        (folder / name / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listing}'\n")
        (folder / name / "nvidia-smi").chmod(0o755)
    path = {"a": f"{folder}/two:{os.environ['PATH']}", "b": f"{folder}/one:{os.environ['PATH']}"}
    outcome = run_attempt(job(folder), Pretended(path=path))
    assert outcome.text == (
        "error: b (ranks 1 to 2) shows 1 accelerator, but the job wants 2 slots there: set slots=1 in the hostfile, or num_gpus=1\n"
    )
    assert not pids(folder)


def test_an_agent_with_a_name_that_is_no_host_is_told_so(folder):
    outcome = run_attempt(job(folder), Pretended(names={"b": "elsewhere"}))
    assert "calls its machine elsewhere, and the hosts of the job are a, b" in outcome.text


def test_two_agents_for_one_host_are_told_so(folder):
    outcome = run_attempt(job(folder), Pretended(names={"b": "a"}))
    assert "two agents" in outcome.text


def test_names_are_the_same_with_and_without_their_domain(folder):
    assert run_attempt(job(folder), Pretended(names={"b": "b.cluster.example"})).status == 0


def test_a_script_that_is_not_on_a_machine_is_named(folder):
    outcome = run_attempt(job(folder, script="no_such_script.py"), Pretended())
    assert outcome.text.startswith('error: the script "no_such_script.py" does not exist on ')


def test_a_lost_machine_is_replaced_and_the_job_begins_anew_there(folder, capsys):
    """The second attempt has other hosts, counts as a restart, and ends well, also when somebody has asked where the ranks are (SIGUSR2)."""

    def lose() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(parent(int((folder / "out/pid.1").read_text())), signal.SIGKILL)

    when_started(folder, lose)
    lost: list[list[str]] = []
    others = (HOSTS[0], Host("c", (0, 1)))

    def following(names) -> Attempt:
        lost.append(list(names))
        for file in (folder / "out").glob("started.*"):
            file.unlink()
        return Attempt(job(folder, "succeed", hosts=others), Pretended(), notes=("c takes the place of b",))

    first = job(folder, "wait", max_restarts=2)
    outcome = run_job(Attempt(first, Pretended()), following=following)
    assert (outcome.status, outcome.restarts, lost) == (0, 1, [["b"]])
    first_line, note = capsys.readouterr().err.splitlines()
    assert first_line.startswith("error: the agent on b (ranks 1 to 2) ended without a word")
    assert first_line.endswith("; restart 1 of 2")
    assert note == "c takes the place of b"
    assert {line.split()[-1] for line in written(folder, "started")} == {"1"}


def test_an_agent_that_does_not_know_the_token_is_told_so_and_does_no_harm(folder, monkeypatch, capfd):
    """It is of another job, or started with another config; the job waits for the right one."""
    monkeypatch.setattr("megatron.launcher.head.head.IMPATIENCE_SECONDS", 0.0)

    class WithStranger(Pretended):
        def commands(self, job: Job) -> list[Command]:
            argv = agent_argv(job, node="b", conclude=True)
            wrong = agent_environment(job) | {TOKEN_VARIABLE: "wrong"}
            late = ("sh", "-c", f'while [ ! -e {folder}/out/told ]; do sleep 0.05; done; exec "$@"', "sh")
            first, second = super().commands(job)
            told = (*argv, "||", "touch", f"{folder}/out/told")
            stranger = Command(("sh", "-c", " ".join(told)), wrong)
            return [first, dataclasses.replace(second, argv=(*late, *second.argv)), stranger]

    assert run_attempt(job(folder), WithStranger()).status == 0
    err = capfd.readouterr().err
    assert "error: this agent does not belong to the job whose head is here" in err
    assert "waiting for" in err


def test_a_program_that_goes_on_with_the_other_hosts_is_taken_at_its_word(folder, capfd):
    class Complaining(Pretended):
        def commands(self, job: Job) -> list[Command]:
            first, _ = super().commands(job)
            code = "import sys, time; sys.stderr.write('half a line, program: b: no such file\\nprogram: b: no such file\\n'); time.sleep(60)"
            return [first, Command((sys.executable, "-uc", code), complaint="program: (?P<host>.+): no such file")]

    begin = time.monotonic()
    outcome = run_attempt(job(folder), Complaining())
    assert time.monotonic() - begin < 20
    assert outcome.text == (
        "error: b (ranks 1 to 2) has not started its agent (what it says is above): program: b: no such file\n"
    )
    assert capfd.readouterr().err.count("no such file\n") == 2


@pytest.mark.parametrize("hello", [{"number": "x"}, {"number": 1.5}, {"token": "\ud800"}, {"token": None}])
def test_nonsense_of_a_stranger_does_no_harm(folder, hello):
    def speak(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as link:
            link.sendall(json.dumps({"kind": "hello", **hello}).encode() + b"\n")
            link.recv(1000)

    class WithStranger(Pretended):
        def commands(self, job: Job) -> list[Command]:
            threading.Thread(target=speak, args=((job.head.addresses[0], job.head.port),)).start()
            return super().commands(job)

    assert run_attempt(job(folder), WithStranger()) == Outcome(0)


def test_deepy_and_its_agent_on_one_machine_may_be_stopped_for_any_time(folder):
    """Ctrl-Z, `fg` later; the other one goes on, and both find each other again."""
    hosts = (Host("a", (0, 1, 2)),)

    def freeze() -> None:
        agent = parent(int((folder / "out/pid.1").read_text()))
        os.kill(agent, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(agent, signal.SIGCONT)
        os.kill(os.getpid(), signal.SIGTERM)

    when_started(folder, freeze)
    assert run_attempt(job(folder, "wait", hosts=hosts, node_timeout=0.5), Pretended()).status == STOPPED


def test_a_notice_to_deepy_reaches_the_ranks_and_ends_nothing(folder):
    """SIGUSR2, after which the run goes on; a later loss of a machine is not taken for a stop."""
    script = folder / "notice.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "folder, rank = sys.argv[2], os.environ['RANK']\n"
        "seen = []\n"
        "signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))\n"
        "open(f'{folder}/started.{rank}', 'w').write(rank)\n"
        "end = time.monotonic() + 30\n"
        "while not seen and time.monotonic() < end: time.sleep(0.02)\n"
        "sys.exit(0 if seen else 3)\n"
    )
    when_started(folder, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert run_attempt(job(folder, script=str(script)), Pretended()) == Outcome(0)


def test_an_interrupt_is_a_word_to_the_ranks_of_an_interactive_job_and_ends_nothing(folder):
    """And one that is not listened to yet ends the job, as everywhere."""
    script = folder / "talk.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "folder, rank = sys.argv[2], os.environ['RANK']\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))\n"
        "assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), 'it waits until a rank listens'\n"
        "if sys.argv[1] == 'loading': signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))\n"
        "open(f'{folder}/started.{rank}', 'w').write(rank)\n"
        "end = time.monotonic() + 30\n"
        "while len(seen) < 2 and time.monotonic() < end: time.sleep(0.02)\n"
        "sys.exit(0 if len(seen) == 2 else 3)\n"
    )

    def interrupt() -> None:
        suspended.append(signal.getsignal(signal.SIGTSTP))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    suspended: list[object] = []
    when_started(folder, interrupt)
    assert run_attempt(job(folder, script=str(script), interactive=True), Pretended()) == Outcome(0)
    # Ctrl-Z would stop the head alone, and the ranks would read what the person types for the shell.
    assert suspended == [signal.SIG_IGN] != [signal.getsignal(signal.SIGTSTP)]
    for file in (folder / "out").iterdir():
        file.unlink()
    when_started(folder, lambda: os.kill(os.getpid(), signal.SIGINT))
    outcome = run_attempt(job(folder, "loading", script=str(script), interactive=True), Pretended())
    assert (outcome.status, outcome.text) == (130, "stopped by SIGINT; nothing was saved\n")


def test_all_attempts_are_one_job_whose_age_goes_on(folder):
    """NEOX_JOB is the same in all of them, and NEOX_STARTED is when the first began."""
    script = folder / "age.py"
    script.write_text(
        "import os, sys, time\n"
        "count, rank = os.environ['TORCHELASTIC_RESTART_COUNT'], os.environ['RANK']\n"
        "words = [os.environ['NEOX_JOB'], os.environ['NEOX_STARTED'], str(time.time())]\n"
        "open(f'{sys.argv[2]}/said.{rank}.{count}', 'w').write(' '.join(words))\n"
        "time.sleep(0.5)\n"
        "os._exit(9 if count == '0' and rank == '1' else 0)\n"
    )
    assert run_attempt(job(folder, script=str(script), max_restarts=1), Pretended()).restarts == 1
    said = [(folder / "out" / f"said.0.{count}").read_text().split() for count in range(2)]
    (name, first, _), (same, second, now) = said
    assert name == same
    assert len(name) == 32
    assert abs(float(first) - float(second)) < 0.3
    assert float(now) - float(second) > 0.5


def test_the_address_and_port_that_the_user_names_are_what_ranks_are_told_also_after_a_restart(folder):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    fixed = job(folder, "crash", max_restarts=1, master_addr="localhost", master_port=port, port_is_fixed=True)
    assert run_attempt(fixed, Pretended()).restarts == 1
    assert {tuple(line.split()[6:8]) for line in written(folder, "started")} == {("localhost", str(port))}


def test_a_job_that_loses_machines_again_and_again_ends_when_its_restarts_are_used_up(folder, capsys, monkeypatch):
    monkeypatch.setattr("megatron.launcher.head.head.LATECOMER_SECONDS", 0.5)
    lost: list[list[str]] = []

    def following(names) -> Attempt:
        lost.append(list(names))
        return Attempt(first, Pretended(without=("b",)))

    first = job(folder, max_restarts=2)
    outcome = run_job(Attempt(first, Pretended(without=("b",))), following=following)
    assert (outcome.status, outcome.restarts) == (1, 2)
    assert lost == [["b"], ["b"]], "tried again, it was lost again"
    said = capsys.readouterr().err.splitlines()
    assert [line.endswith(f"; restart {number} of 2") for number, line in enumerate(said[:2], start=1)] == [True, True]
    assert "restart" not in said[2]
