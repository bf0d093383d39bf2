"""The most memory that looking at a checkpoint takes, as the operating system counts it: a tensor and a saved chunk, whatever its size."""

from __future__ import annotations

import ctypes
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from megatron.checkpointing.inspecting.command import run
from megatron.checkpointing.inspecting.parser import parse_arguments
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.engine.protocol import FullTensor, Piece
from tests.unit.checkpointing.fakes import FakeEngine
from tests.unit.checkpointing.inspecting.saved import save_run
from tools.benchmark.resident import resident_peak

SIZE = 8 * 2**20
COUNT = 10
ALLOWANCE = 0.5  # of blocks, lists of what is where, and so on
M_MMAP_THRESHOLD = -3


def save(directory: Path) -> Path:
    """COUNT tensors of SIZE bytes, each saved in one chunk."""
    tensors = {}
    for number in range(COUNT):
        values = torch.full((SIZE // 4,), float(number))
        name = f"{number // 2}.weight/{('weight', 'exp_avg')[number % 2]}"
        tensors[name] = FullTensor(values.shape, (Piece((0,), values),))
    return save_checkpoint(directory, FakeEngine(tensors), iteration=1, run_state={})


def peaks(large: Path, small: Path, output: Path) -> list[float]:
    """The peak of each command in multiples of SIZE. For a new process, whose heap nothing else has used, and which gives freed memory back at once."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)
    found = []
    for checkpoint in (small, large):  # the small one for what is loaded and made once
        consolidated = ["--consolidate", str(output / f"{checkpoint.parent.name}.safetensors"), "--optimizer"]
        found = [
            peak([str(checkpoint), "--digest"]),
            peak([str(checkpoint), *consolidated]),
            peak(["--compare", str(checkpoint), str(checkpoint)]),
        ]
    return found


def peak(command: list[str]) -> float:
    """Of one command."""
    with resident_peak() as resident:
        run(parse_arguments(command), lambda lines: None)
    return resident.bytes / SIZE


def test_one_tensor_and_one_chunk_are_in_memory_at_a_time(tmp_path: Path) -> None:
    large, small = save(tmp_path / "large"), save_run(tmp_path / "small")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        shown, consolidated, compared = pool.submit(peaks, large, small, tmp_path).result()
    assert 1 < shown < 2 + ALLOWANCE
    assert 1 < consolidated < 2 + ALLOWANCE
    assert 2 < compared < 3 + ALLOWANCE
