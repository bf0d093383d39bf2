"""Measures how fast index maps are built and found again, and how fast blends are: the table of numbers from a million documents on.

python tools/benchmark/index_maps.py                                   # up to 10^8 documents; writes results/index_maps_CPU.json
python tools/benchmark/index_maps.py --documents 1e9 --directory DIR   # 10^9 documents of 1000 tokens: 18 GB in DIR, 6 GB of memory

Each number is taken in a process of its own, on one core. Seconds are those of a clock; where other processes want the core as well,
those of the processor (cpu) are the ones to compare. Memory is what the process allocates: pages of files it maps are not counted, the
operating system takes those back when it needs them. The floor is what numpy alone takes to shuffle arrays of these sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from megatron.data.blendable_dataset import blend_order
from megatron.data.gpt_dataset import build_gpt_dataset
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps import index_maps
from megatron.data.maps.index_cache import ArrayPieces
from tools.benchmark.processor import file_name, processor
from tools.benchmark.virtual_corpus import write_virtual_corpus

RESULTS = Path(__file__).resolve().parent / "results"
SETTINGS = {"part": "train", "seq_length": 2048, "num_samples": 1, "seed": 1234}
MEAN_TOKENS = 1000
FLOOR_LIMIT = 100_000_000  # documents; numpy alone would take minutes for more
PAUSE = 0.02  # seconds between two looks at a process's memory


class Stopwatch:
    """Seconds, of a clock and of the processor, spent between `start` and `stop`, in total."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, measured."""

        def measured(*arguments: Any, **settings: Any) -> Any:
            self.start()
            try:
                return function(*arguments, **settings)
            finally:
                self.stop()

        return measured


def measure_build(prefix: Path) -> dict[str, Any]:
    """Build the maps of the whole dataset and store them: computing and shuffling apart from writing."""
    computing, shuffling, everything = Stopwatch(), Stopwatch(), Stopwatch()
    plan = computing.around(index_maps.plan_index_maps)

    def timed(array: ArrayPieces) -> ArrayPieces:
        def pieces() -> Iterator[Any]:
            iterator = array.pieces()
            following = computing.around(lambda: next(iterator, None))
            while (piece := following()) is not None:
                yield piece

        return ArrayPieces(array.shape, array.dtype, pieces)

    index_maps.plan_index_maps = lambda *arguments, **settings: {
        name: timed(array) for name, array in plan(*arguments, **settings).items()
    }
    index_maps.shuffle = shuffling.around(index_maps.shuffle)
    dataset = IndexedDataset(prefix)
    build = everything.around(index_maps.load_or_build_index_maps)
    maps = build(dataset, range(len(dataset)), **SETTINGS)
    return {
        "samples": len(maps["shuffle"]),
        "result_bytes": sum(array.nbytes for array in maps.arrays.values()),
        "seconds": computing.seconds,
        "cpu_seconds": computing.cpu,
        "shuffling_cpu_seconds": shuffling.cpu,
        "writing_seconds": everything.seconds - computing.seconds,
    }


def measure_start(prefix: Path) -> dict[str, Any]:
    """Open the dataset, find its maps, read the first sample."""
    index_maps.plan_index_maps = None  # type: ignore[assignment]  # whatever is not found is not built
    began = time.perf_counter()
    dataset = IndexedDataset(prefix)
    build_gpt_dataset(dataset, range(len(dataset)), **SETTINGS)[0]
    return {"seconds": time.perf_counter() - began}


def measure_floor(documents: int, samples: int) -> dict[str, Any]:
    """What `RandomState.shuffle` takes for both arrays that are shuffled."""
    random, shuffling = np.random.RandomState(1), Stopwatch()
    for array in (np.arange(documents, dtype=np.int32), np.arange(samples, dtype=np.uint32)):
        shuffling.around(random.shuffle)(array)
    return {"cpu_seconds": shuffling.cpu}


def measure_blend(datasets: int, samples: int) -> dict[str, Any]:
    """Blend datasets of random weights; translating the loop is included."""
    watch = Stopwatch()
    chosen, numbers = watch.around(blend_order)(np.random.default_rng(0).random(datasets).tolist(), samples)
    result_bytes = chosen.nbytes + numbers.nbytes
    return {"seconds": watch.seconds, "cpu_seconds": watch.cpu, "result_bytes": result_bytes}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "build": lambda prefix: measure_build(Path(prefix)),
    "start": lambda prefix: measure_start(Path(prefix)),
    "floor": lambda documents, samples: measure_floor(int(documents), int(samples)),
    "blend": lambda datasets, samples: measure_blend(int(datasets), int(samples)),
}


def run_apart(measure: str, *arguments: object) -> dict[str, Any]:
    """A measure in a new process, with `peak_bytes`: the most memory it had allocated beyond what importing takes."""
    command = [sys.executable, __file__, "--measure", measure, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(PAUSE)
    assert process.stdout is not None
    words = process.stdout.read().splitlines()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(words[-1])
    result["peak_bytes"] = max(peak - result.pop("memory_before"), 0)
    return result


def anonymous_bytes(process: int) -> int:
    """Memory of a process that is not that of files; 0 where /proc does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def measure_documents(documents: int, directory: Path | None) -> dict[str, Any]:
    """All numbers of one dataset."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        prefix = Path(scratch) / "corpus"
        tokens = write_virtual_corpus(prefix, documents=documents, mean_tokens=MEAN_TOKENS)
        case = {"documents": documents, "tokens": tokens, **run_apart("build", prefix)}
        forget(Path(scratch))
        case["cold_start_seconds"] = run_apart("start", prefix)["seconds"]
        case["warm_start_seconds"] = run_apart("start", prefix)["seconds"]
    case["documents_per_second"] = documents / case["cpu_seconds"]
    if documents <= FLOOR_LIMIT:
        case["floor_cpu_seconds"] = run_apart("floor", documents, case["samples"])["cpu_seconds"]
    return case


def forget(directory: Path) -> None:
    """Ask the operating system to drop what it keeps in memory of the files of `directory`."""
    for path in directory.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def print_table(cases: list[dict[str, Any]]) -> None:
    """One line a dataset."""
    print(
        "documents    tokens  seconds    cpu  shuffling  (numpy's)  documents/s   memory   result  writing  start cold, warm"
    )
    for case in cases:
        floor = f"{case['floor_cpu_seconds']:9.2f}" if "floor_cpu_seconds" in case else "        -"
        print(
            f"{case['documents']:9.0e} {case['tokens']:9.2e} {case['seconds']:8.2f} {case['cpu_seconds']:6.2f}"
            f" {case['shuffling_cpu_seconds']:10.2f}  {floor} {case['documents_per_second'] / 1e6:10.1f} M"
            f" {case['peak_bytes'] / 2**30:5.2f} GiB {case['result_bytes'] / 2**30:4.2f} GiB {case['writing_seconds']:7.2f}"
            f"  {case['cold_start_seconds']:9.3f}, {case['warm_start_seconds']:.3f}"
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure building index maps and blends.")
    parser.add_argument("--documents", nargs="*", type=float, default=[1e6, 1e7, 1e8], help="default: 1e6 1e7 1e8")
    parser.add_argument("--blend", nargs="*", type=float, default=[1e6, 1e8], help="samples of a blend of 8 datasets")
    parser.add_argument("--directory", type=Path, help="where data may lie for a while (default: the temporary one)")
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/index_maps_CPU.json")
    parser.add_argument("--measure", nargs="+", metavar="WORD", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure everything that was asked for, or one thing in this process."""
    options = parse_arguments()
    if options.measure:
        before = anonymous_bytes(os.getpid())
        name, *arguments = options.measure
        print(json.dumps(MEASURES[name](*arguments) | {"memory_before": before}))
        return
    cases = [measure_documents(int(documents), options.directory) for documents in options.documents]
    print_table(cases)
    blends = []
    for samples in options.blend:
        blends.append({"datasets": 8, "samples": int(samples), **run_apart("blend", 8, int(samples))})
        print(
            f"blend of 8 datasets, {samples:.0e} samples: {blends[-1]['seconds']:.2f} s, cpu {blends[-1]['cpu_seconds']:.2f} s"
        )
    output = options.output or RESULTS / file_name("index_maps")
    output.parent.mkdir(parents=True, exist_ok=True)
    report = {"processor": processor(), "numpy": np.__version__, "maps": cases, "blends": blends}
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
