"""Measures what a checkpoint costs: the disk alone beside torch.save, safetensors, plain torch.distributed.checkpoint and ours.

python tools/benchmark/checkpoint.py                            # 1 GB, 1 and 2 processes; writes results/checkpoint_CPU.json
python tools/benchmark/checkpoint.py --directory DIR --check    # on the disk of DIR; status 1 when a target is missed

All ways take turns, round after round, since disks are fast at one moment and slow at another: what counts are ratios within a round.
Each begins with nothing left to write, and ends when all is on the disk (fsync). What is read is no longer in the page cache. Seconds
are those of the slowest process. Memory of loading is what a process holds at most beyond the state, which is there before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gc
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import torch.distributed as dist

from megatron.checkpointing.planners import CHUNK_BYTES
from megatron.mpu.groups import SINGLE, Group
from tools.benchmark.checkpoint_ways import WAYS, State, build_state, copy_memory, copy_state
from tools.benchmark.processor import file_name, processor
from tools.benchmark.resident import resident_peak

RESULTS = Path(__file__).resolve().parent / "results"
WRITE_TARGET = 1.2  # times the raw write
STALL_TARGET = 1.3  # times a memcpy
DISK_TARGET = 1.01  # times the state
SMALL_CHANGE = 1 << 24  # bytes that reading may take for itself beside the chunk
COPIES = 5  # copies that a round takes the median of


def measure(rank: int, world: int, options: argparse.Namespace, scratch: Path, answer: Any) -> None:
    """All rounds in one process of `world`; the first answers with what the slowest took."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))
    group = SINGLE
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{scratch / 'meeting'}", rank=rank, world_size=world)
        group = Group(rank, world, tuple(range(world)), dist.group.WORLD)
    state = build_state(options.megabytes, group)
    rounds = [measure_round(state, scratch / "state", turn=number) for number in range(-1, options.rounds)]
    report = {
        "processes": world,
        "state_bytes": int(together(state, state.bytes, dist.ReduceOp.SUM)),
        "chunk_bytes": int(together(state, min(CHUNK_BYTES, max(view.nbytes for view in state.alone.values())))),
        "rounds": rounds[1:],  # the first, with everything done for the first time, is a rehearsal
    }
    if rank == 0:
        answer.send(report)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def measure_round(state: State, directory: Path, *, turn: int) -> dict[str, Any]:
    """Every way once, beginning with another one each round."""
    names = list(WAYS)
    first = turn % len(names)
    if state.group.rank == 0:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        os.sync()  # the disk has nothing left to do of the round before
    result: dict[str, Any] = {name: {} for name in names}
    result["memcpy"] = slowest(state, lambda: copy_memory(state), times=COPIES)
    result["stall"] = slowest(state, lambda: copy_state(state), times=COPIES)
    for name in [*names[first:], *names[:first]]:
        result[name] = measure_way(state, directory / name, name)
    return result


def measure_way(state: State, directory: Path, name: str) -> dict[str, Any]:
    """Seconds of writing and of reading one way, bytes on the disk, memory of reading."""
    way = WAYS[name]
    if state.group.rank == 0:
        directory.mkdir()
    result: dict[str, Any] = {"write_seconds": slowest(state, lambda: way.write(state, directory))}
    result["disk_bytes"] = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    if way.read is not None:
        forget(directory)
        with resident_peak() as memory:
            result["read_seconds"] = slowest(state, lambda: way.read(state, directory))
        result["read_memory_bytes"] = together(state, memory.bytes)
    return result


def slowest(state: State, action: Callable[[], Any], *, times: int = 1) -> float:
    """Seconds of the process that takes longest, all beginning together; the median of several times."""
    seconds = []
    for _ in range(times):
        together(state, 0.0)
        began = time.perf_counter()
        result = action()
        seconds.append(together(state, time.perf_counter() - began))
        del result
    return statistics.median(seconds)


def together(state: State, value: float, operation: Any = dist.ReduceOp.MAX) -> float:
    """The largest value of all processes, or what another operation makes of them."""
    if state.group.size == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(held, operation)
    return held.item()


def forget(directory: Path) -> None:
    """Ask the operating system to drop what it keeps in memory of the files of `directory`."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_world(world: int, options: argparse.Namespace) -> dict[str, Any]:
    """The measurements of `world` processes."""
    gc.freeze()  # what was imported stays: nobody need look through it
    context = multiprocessing.get_context("fork")  # torch is imported once
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        processes = [
            context.Process(target=measure, args=(rank, world, options, Path(scratch), sender)) for rank in range(world)
        ]
        for process in processes:
            process.start()
        sender.close()
        try:
            report: dict[str, Any] = receiver.recv()
        except EOFError:
            sys.exit("a process failed")
        for process in processes:
            process.join()
    return report


def judge(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets with what was measured: medians of the ratios of each round, and the worst of them."""
    rounds, state = case["rounds"], case["state_bytes"]
    ratios = {
        "total / raw": (
            [each["ours"]["write_seconds"] / each["raw"]["write_seconds"] for each in rounds],
            WRITE_TARGET,
        ),
        "stall / memcpy": ([each["stall"] / each["memcpy"] for each in rounds], STALL_TARGET),
        "bytes on disk / state": ([each["ours"]["disk_bytes"] / state for each in rounds], DISK_TARGET),
        "memory of loading / chunk": (
            [each["ours"]["read_memory_bytes"] / (case["chunk_bytes"] + SMALL_CHANGE) for each in rounds],
            1.0,
        ),
    }
    return [
        {"what": name, "median": statistics.median(values), "worst": max(values), "target": target}
        for name, (values, target) in ratios.items()
    ]


def print_case(case: dict[str, Any]) -> None:
    """A table of seconds and memory, and the targets."""
    rounds = case["rounds"]
    print(f"\n{case['processes']} process(es), {case['state_bytes'] / 1e9:.3f} GB of state, {len(rounds)} rounds")
    print("                      write s (worst)   / raw   disk / state    read s (worst)   memory of reading")
    for name in WAYS:
        seconds = [each[name]["write_seconds"] for each in rounds]
        ratio = statistics.median(each[name]["write_seconds"] / each["raw"]["write_seconds"] for each in rounds)
        line = f"{name:20} {statistics.median(seconds):8.3f} ({max(seconds):6.3f}) {ratio:7.2f} {rounds[0][name]['disk_bytes'] / case['state_bytes']:12.4f}"
        if "read_seconds" in rounds[0][name]:
            seconds = [each[name]["read_seconds"] for each in rounds]
            taken = max(each[name]["read_memory_bytes"] for each in rounds)
            line += f"     {statistics.median(seconds):8.3f} ({max(seconds):6.3f}) {taken / 1e6:12.0f} MB"
        print(line)
    for name in ("memcpy", "stall"):
        seconds = [each[name] for each in rounds]
        print(f"{name:20} {statistics.median(seconds):8.3f} ({max(seconds):6.3f})")
    for each in case["targets"]:
        verdict = "PASS" if each["median"] <= each["target"] else "FAIL"
        print(
            f"{verdict}  {each['what']:26} {each['median']:6.3f} (worst {each['worst']:6.3f}), target {each['target']}"
        )


def describe_machine(directory: Path | None) -> dict[str, Any]:
    """Hardware and versions."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "file_system": file_system(directory or Path(tempfile.gettempdir())),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "safetensors")},
    }


def file_system(directory: Path) -> str:
    """The type of the file system that a directory lies in."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    holding = [
        (len(place), kind) for place, kind in mounts if directory.resolve().is_relative_to(Path(place).resolve())
    ]
    return max(holding)[1] if holding else "unknown"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what a checkpoint costs.")
    parser.add_argument("--megabytes", type=float, default=1000, help="about how much state, over all processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--directory", type=Path, help="where files may lie for a while (default: the temporary one)")
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/checkpoint_CPU.json")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write the report, and judge."""
    options = parse_arguments()
    report: dict[str, Any] = {"machine": describe_machine(options.directory), "cases": []}
    for world in options.processes:
        case = run_world(world, options)
        case["targets"] = judge(case)
        print_case(case)
        report["cases"].append(case)
    output = options.output or RESULTS / file_name("checkpoint")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {output.name}")
    missed = [each for case in report["cases"] for each in case["targets"] if each["median"] > each["target"]]
    if options.check and missed:
        sys.exit(f"{len(missed)} target(s) missed")


if __name__ == "__main__":
    main()
