"""The most memory that an export takes, as the operating system counts it: a layer and a little more, however large the model is."""

from __future__ import annotations

import ctypes
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from megatron.checkpointing.settings import settings_yaml
from megatron.conversion.converting.write import write_checkpoint
from megatron.conversion.export.weights import export_weights
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.choose import family_for
from megatron.conversion.mapping.shapes import model_args
from megatron.conversion.reading.own_checkpoint import OwnCheckpoint
from tools.benchmark.random_model import RandomSource, pythia
from tools.benchmark.resident import resident_peak

HIDDEN, LAYERS = 256, 16
LAYER = 12 * HIDDEN**2 * 4
A_LITTLE = 8 * 2**20  # blocks, lists of what is where, and so on
M_MMAP_THRESHOLD = -3


class Keeping(OwnCheckpoint):
    """Lets go of no tensor that it has read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.kept: list[Tensor] = []

    def read(self, name: str) -> Tensor:
        self.kept.append(super().read(name))
        return self.kept[-1]


def exports(place: Path, large: Architecture) -> list[int]:
    """The peak of an export, and of one that keeps what it reads. For a new process, whose heap nothing else has used, and which gives
    freed memory back at once."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**18)
    small = replace(large, num_layers=1)
    found = []
    # The small one for what is loaded and made once.
    for number, (architecture, kind) in enumerate(((small, OwnCheckpoint), (large, OwnCheckpoint), (large, Keeping))):
        directory, target = place / f"checkpoint {number}", place / f"export {number}"
        directory.mkdir()
        target.mkdir()
        write_checkpoint(RandomSource(architecture), directory, config_yaml=settings_yaml(model_args(architecture)))
        source, family = kind(directory), family_for(architecture)
        with resident_peak() as resident:
            export_weights(source, architecture, family, target, dtype=torch.bfloat16)
        found.append(resident.bytes)
    return found[1:]


def test_an_export_takes_a_layer_of_memory(tmp_path: Path) -> None:
    large = pythia(LAYERS, HIDDEN, 8, rows=2003)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        export, keeping = pool.submit(exports, tmp_path, large).result()
    assert export < LAYER + A_LITTLE
    assert keeping > LAYERS * LAYER
