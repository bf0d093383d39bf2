"""The job of a process that trains in one way, its turns, and what it answers to the lines that the parent writes (`train_child.py`)."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import torch
from torch import Tensor

from tools.benchmark.resident import high_water, reset_high_water, resident
from tools.benchmark.train_cases import Case, of_json

BATCHES = 2  # take turns, so that the loss falls from step to step, by updates that are right

PRODUCTS = "products"
"""The program that takes no steps: its turns measure products of matrices."""

Step = Callable[[Tensor], "Tensor | float"]
"""A whole optimizer step on tokens int64 [b, s], on the CPU -> the loss, of each token but the last of a row by those before it."""


@dataclass(frozen=True)
class Job:
    """case: what to train; directory: the model, as transformers writes it; settings: of the program; lr: of all steps."""

    program: str
    settings: dict[str, Any]
    case: Case
    directory: str
    device: str
    lr: float
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What `job_of` reads."""
        return {**vars(self), "case": self.case.to_json()}


def job_of(values: dict[str, Any]) -> Job:
    """The job that `to_json` gave."""
    return Job(**{**values, "case": of_json(values["case"])})


def batch(case: Case, step: int) -> Tensor:
    """The tokens of a step, int64 [b, s]: the same in every process."""
    generator = torch.Generator().manual_seed(step % BATCHES)
    return torch.randint(case.architecture.vocab_size, (case.rows, case.length), generator=generator)


class Memory:
    """The most memory that steps take beyond what the process had before it built anything: on a GPU in tensors, else as the system counts it."""

    def __init__(self, device: str) -> None:
        self.is_cuda = device == "cuda"
        self.before = 0 if self.is_cuda else resident()

    def begin(self) -> None:
        """What is taken from now on counts."""
        torch.cuda.reset_peak_memory_stats() if self.is_cuda else reset_high_water()

    def peak(self) -> int:
        """Bytes."""
        return torch.cuda.max_memory_allocated() if self.is_cuda else high_water() - self.before


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer every line of `commands`; a failure is answered as well, and ends it."""

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    job = job_of(json.loads(commands.readline()))
    try:
        began = time.perf_counter()
        program = importlib.import_module(f"tools.benchmark.train_{job.program}")
        memory = Memory(job.device)
        take = program.build(job) if job.program == PRODUCTS else Turns(job, program.build(job), memory)
        answer(seconds=time.perf_counter() - began, notes=job.notes)
        for line in commands:
            answer(**take(json.loads(line)["steps"]))
    except torch.OutOfMemoryError:
        answer(failed="out of memory")
    except Exception as error:
        import traceback

        traceback.print_exc()
        answer(
            failed=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]
        )


class Turns:
    """Steps of a way, so many a turn, each with the next batch."""

    def __init__(self, job: Job, step: Step, memory: Memory) -> None:
        self.job, self.step, self.memory = job, step, memory
        self.done = 0

    def __call__(self, count: int) -> dict[str, Any]:
        """Steps that are timed together: seconds and CPU seconds of one, all losses, the most memory there was at once."""
        batches = [batch(self.job.case, self.done + number) for number in range(count)]
        self.done += count
        self.memory.begin()
        wait_for(self.job.device)
        began, cpu_began = time.perf_counter(), time.process_time()
        losses = [self.step(tokens) for tokens in batches]
        wait_for(self.job.device)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        return {
            "seconds": seconds / count,
            "cpu_seconds": cpu_seconds / count,
            "losses": [float(loss) for loss in losses],
            "peak_bytes": self.memory.peak(),
        }


def wait_for(device: str) -> None:
    """Until it has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
