"""A checkpoint of ours as a source of tensors, whatever layout wrote it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.names import WEIGHT
from megatron.checkpointing.settings import read_settings
from megatron.checkpointing.state_file import Shapes
from megatron.conversion.mapping.architecture import Architecture, architecture_of
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs

EMBEDDING = f"0.word_embeddings.weight/{WEIGHT}"


class OwnCheckpoint:
    """The tensors of one checkpoint, with optimizer state where it has some. directory: where checkpoints lie, or one of them; args: settings
    in place of those that it has.

    Raises CheckpointError when there is none that is whole, or it does not say what it is of.
    """

    def __init__(self, directory: Path, *, iteration: int | None = None, args: NeoXArgs | None = None) -> None:
        self.directory = find_checkpoint(directory, iteration=iteration)
        self.description = str(self.directory)
        self.args = read_settings(self.directory) if args is None else args
        self._reader = TensorReader(self.directory)
        self.shapes: Shapes = {name: saved.shape for name, saved in self._reader.saved.items()}

    @property
    def architecture(self) -> Architecture:
        """By the settings of the run; rows of the vocabulary are those of the embedding."""
        if EMBEDDING not in self.shapes:
            raise CheckpointError(f"{self.directory} holds no {EMBEDDING}: it is no language model")
        return architecture_of(self.args, vocab_size=self.shapes[EMBEDDING][0])

    def read(self, name: str) -> Tensor:
        """One tensor in the dtype it was saved in. Raises DamagedCheckpoint when a file is missing or cannot be read."""
        return self._reader[name]
