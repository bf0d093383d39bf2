"""`python deepy.py SCRIPT CONFIG` for real: starting, failing, stopping, and what is left behind. The scripts do not import torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

CONFIG = """{
  "num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "seq_length": 32,
  "train_micro_batch_size_per_gpu": 2, "train_iters": 10, "num_gpus": 2,
  "tokenizer_type": "CharLevelTokenizer", "data_path": "nowhere",
}
"""

SCRIPT = """
import json, os, signal, sys, time
from megatron.errors import DataError
from megatron.launcher.worker import run_worker

folder = os.environ["TEST_FOLDER"]
rank = os.environ.get("RANK")

def write(name, text=""):
    with open(f"{folder}/{name}.{rank}.partial", "w") as file:
        file.write(text)
    os.replace(f"{folder}/{name}.{rank}.partial", f"{folder}/{name}.{rank}")

def save(number, frame):
    time.sleep(1)
    write("saved", str(number))
    sys.exit(75)

def main():
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
    write("started", json.dumps({"environment": dict(os.environ), "arguments": sys.argv[1:], "pid": os.getpid()}))
    mode = os.environ["TEST_MODE"]
    if mode == "succeed" or os.environ["TORCHELASTIC_RESTART_COUNT"] == "2":
        return
    while not all(os.path.exists(f"{folder}/started.{each}") for each in range(2)):
        time.sleep(0.01)
    if mode == "refuse":
        raise DataError("the corpus is missing: run prepare_data.py")
    if mode == "wait":
        for _ in range(1200):
            time.sleep(0.05)  # a signal just before one long sleep would be noticed after it
    if rank == "1" and mode == "raise":
        raise ValueError("something odd")
    if rank == "1" and mode in ("kill", "recover"):
        open(f"{folder}/ports", "a").write(os.environ["MASTER_PORT"] + "\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)

run_worker(main)
"""


@dataclass
class Run:
    """One running deepy.py and the folder its ranks write to."""

    process: subprocess.Popen[str]
    folder: Path
    begin: float

    def finish(self, seconds: float = 60) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def wait_for(self, name: str, size: int = 2) -> list[dict]:
        """What each rank wrote as `name`, as soon as all have."""
        files = [self.folder / f"{name}.{rank}" for rank in range(size)]
        wait_until(lambda: all(file.exists() for file in files) or self.process.poll() not in (None, -signal.SIGKILL))
        return [json.loads(file.read_text()) for file in files]

    def pids(self) -> list[int]:
        """The ranks that started, from what they wrote."""
        return [json.loads(file.read_text())["pid"] for file in self.folder.glob("started.[0-9]")]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(folder: Path, mode: str, *words: str) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(CONFIG)
    (folder / "worker.py").write_text(SCRIPT)
    unset = ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TEST_FOLDER": str(folder), "TEST_MODE": mode, "CUDA_VISIBLE_DEVICES": ""}
    argv = [sys.executable, str(REPOSITORY / "deepy.py"), str(folder / "worker.py"), str(folder / "config"), *words]
    begin = time.monotonic()
    process = subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return Run(process, folder, begin)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[dict[str, Run]]:
    """One run of each kind that ends by itself, all at the same time: starting the agent takes a second or two."""
    folder = tmp_path_factory.mktemp("runs")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"master_port={taken.getsockname()[1]}"
        started = {mode: start(folder / mode, mode, port) for mode in ("succeed", "refuse", "raise", "kill")}
        started["recover"] = start(folder / "recover", "recover", port, "max_restarts=2", "save=checkpoints")
        yield started
    for run in started.values():
        run.process.kill()
        run.process.wait()


@pytest.fixture
def waiting(tmp_path) -> Iterator[Run]:
    """A run whose ranks wait for a signal."""
    run = start(tmp_path, "wait")
    run.wait_for("started")
    yield run
    run.process.kill()
    run.process.wait()


def test_every_rank_runs_with_its_place_the_config_and_the_environment_for_cpus(runs):
    code, _, err = runs["succeed"].finish()
    assert (code, err) == (0, "")
    ranks = runs["succeed"].wait_for("started")
    environments = [rank["environment"] for rank in ranks]
    assert [
        (each["RANK"], each["LOCAL_RANK"], each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in environments
    ] == [
        ("0", "0", "2", "2"),
        ("1", "1", "2", "2"),
    ]
    for name in ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "TORCH_EXTENSIONS_DIR", "MASTER_ADDR"):
        assert name in environments[0]
    assert (environments[0]["DS_ACCELERATOR"], environments[0]["TOKENIZERS_PARALLELISM"]) == ("cpu", "false")
    assert ranks[0]["arguments"][0] == "--neox-args"
    assert ranks[0]["arguments"][1].startswith("@"), "the config reaches a rank in a file, however long it is"
    logs = [(runs["succeed"].folder / "logs" / f"rank_{rank}.log").read_text() for rank in range(2)]
    assert [log.count("rank ") for log in logs] == [1, 1], "a title, and nothing was printed"


def test_a_taken_port_is_replaced_and_all_ranks_are_told(runs):
    runs["succeed"].finish()
    ports = {rank["environment"]["MASTER_PORT"] for rank in runs["succeed"].wait_for("started")}
    taken = next(word for word in runs["succeed"].process.args if word.startswith("master_port=")).removeprefix(
        "master_port="
    )
    assert len(ports) == 1
    assert ports != {taken}


def test_the_same_mistake_on_all_ranks_is_told_once_named_by_rank(runs):
    code, _, err = runs["refuse"].finish()
    assert code == 1
    assert err in {f"error (rank {rank}): the corpus is missing: run prepare_data.py\n" for rank in range(2)}


def test_an_unexpected_error_keeps_its_traceback_which_is_told_once(runs):
    code, _, err = runs["raise"].finish()
    assert code == 1
    assert err.startswith("error (rank 1):\nTraceback")
    assert err.count("Traceback") == 1
    assert err.endswith("ValueError: something odd\n")


def test_a_killed_rank_ends_all_within_seconds_and_is_named(runs):
    code, _, err = runs["kill"].finish(seconds=20)
    assert code == 137
    assert err.startswith("error: rank 1 was killed by signal 9 (SIGKILL)")
    assert len(err.splitlines()) == 1


def test_crashed_ranks_are_started_again_around_a_new_store(runs):
    code, _, err = runs["recover"].finish()
    assert code == 0
    first, second = err.splitlines()
    assert first.startswith("error: rank 1 was killed by signal 9 (SIGKILL)")
    assert first.endswith("; restart 1 of 2")
    assert second.endswith("; restart 2 of 2")
    ports = (runs["recover"].folder / "ports").read_text().split()
    assert len(set(ports)) == 2, "one for each attempt that crashed"
    environment = runs["recover"].wait_for("started")[0]["environment"]
    assert (environment["TORCHELASTIC_RESTART_COUNT"], environment["TORCHELASTIC_MAX_RESTARTS"]) == ("2", "2")


def test_no_process_is_left_behind(runs):
    for run in runs.values():
        run.finish()
        assert run.pids()
        assert not any(is_running(pid) for pid in run.pids())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_lets_every_rank_save_and_exit(waiting, number):
    waiting.process.send_signal(number)
    code, _, err = waiting.finish()
    assert (code, err) == (75, "stopped (exit status 75): what was done is saved; the same command goes on\n")
    assert waiting.wait_for("saved") == [signal.SIGTERM, signal.SIGTERM]


def test_a_second_interrupt_ends_ranks_that_are_still_saving(waiting):
    waiting.process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # each rank takes a second to save
    waiting.process.send_signal(signal.SIGINT)
    code, _, err = waiting.finish(seconds=10)
    assert (code, err) == (130, "killed by a second SIGINT; what was done since the last checkpoint is lost\n")
    assert not any(is_running(pid) for pid in waiting.pids())


def test_ranks_save_when_the_launcher_itself_is_killed(waiting):
    waiting.process.kill()
    assert waiting.wait_for("saved") == [signal.SIGTERM, signal.SIGTERM]
    wait_until(lambda: not any(is_running(pid) for pid in waiting.pids()), seconds=10)


def test_a_dry_run_prints_the_command_and_starts_nothing(tmp_path):
    run = start(tmp_path, "succeed", "--dry-run", "num_gpus=3")
    code, out, err = run.finish()
    assert (code, err) == (0, "")
    assert "-m megatron.launcher.agent --head 127.0.0.1:PORT --node localhost" in out
    assert "hosts:\n  localhost (ranks 0 to 2)\n" in out
    assert "num_layers" in out
    assert "config.yml:2" in out
    assert not list(tmp_path.glob("started.*"))


def test_all_mistakes_are_told_at_once_in_under_a_second_without_a_traceback(tmp_path):
    run = start(tmp_path, "succeed", "num_layer=3", "hidden_size=many", "num_gpus=2", "model_parallel_size=3")
    code, out, err = run.finish()
    seconds = time.monotonic() - run.begin
    assert (code, out) == (1, "")
    assert "num_layer" in err
    assert "hidden_size" in err
    assert len(err.splitlines()) >= 2
    assert all(line.startswith(("error: ", "    ")) for line in err.splitlines())  # a problem, or the line it is about
    assert seconds < 1 or os.getloadavg()[0] > 2  # the promise is for a machine that has nothing else to do
    assert not list(tmp_path.glob("started.*"))


def test_a_script_that_is_not_there_and_a_wrong_command_line(tmp_path):
    (tmp_path / "a.yml").write_text(CONFIG)
    missing = subprocess.run(
        [sys.executable, REPOSITORY / "deepy.py", "trian.py", "a"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (missing.returncode, missing.stderr.splitlines()[0][:38]) == (1, 'error: the script "trian.py" does not ')
    usage = subprocess.run(
        [sys.executable, REPOSITORY / "deepy.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert usage.returncode == 2


def test_generation_is_folded_to_one_copy_of_the_model(tmp_path):
    (tmp_path / "generate.py").write_text("")
    (tmp_path / "latest").write_text("")
    (tmp_path / "a.yml").write_text(CONFIG)
    words = [
        "--dry-run",
        "generate.py",
        "a",
        "load=.",
        "model_parallel_size=2",
        "pipe_parallel_size=2",
        "num_gpus=8",
        "train_batch_size=16",
    ]
    result = subprocess.run(
        [sys.executable, REPOSITORY / "deepy.py", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "localhost (ranks 0 to 3)" in result.stdout
    assert (
        "generate.py runs one copy of the model on 4 processes: 2 pipeline stages x 2 tensor-parallel" in result.stdout
    )


def test_nothing_before_the_workers_imports_torch():
    code = """
import importlib, pkgutil, sys
import megatron.cli, megatron.launcher, megatron.neox_arguments, megatron.planning, megatron.tokenizer
needs_torch = {"megatron.launcher.agent.store", "megatron.launcher.agent.__main__"}  # loaded in the agent's process only
rooms = (megatron.cli, megatron.launcher, megatron.neox_arguments, megatron.planning, megatron.tokenizer)
for package in rooms:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in needs_torch:
            importlib.import_module(module.name)
import megatron.environment, megatron.log, deepy
heavy = {"torch", "deepspeed", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)
