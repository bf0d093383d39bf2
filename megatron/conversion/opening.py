"""Any model that can be read, by what a person calls it: our checkpoints, Hugging Face transformers, GPT-NeoX, Llama as Meta publishes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.checkpointing.places import place
from megatron.conversion.hub.names import is_hub_name
from megatron.conversion.mapping.architecture import Architecture, architecture_of
from megatron.conversion.meta_llama.source import MetaLlamaSource
from megatron.conversion.opening_neox import open_neox
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.conversion.reading.own_checkpoint import OwnCheckpoint
from megatron.conversion.source import TensorSource
from megatron.errors import CheckpointError
from megatron.foreign import Program, program_of_load
from megatron.neox_arguments import NeoXArgs


@dataclass(frozen=True)
class OpenedModel:
    """source: its tensors; directory: where its files lie, of one checkpoint where there are several; saved_args: the settings it was trained
    with, where it has them in our keys."""

    source: TensorSource
    architecture: Architecture
    description: str
    directory: Path
    saved_args: NeoXArgs | None = None


def open_model(
    text: str | Path,
    *,
    iteration: int | None = None,
    trusted: bool = False,
    vocab_size: int | None = None,
    args: NeoXArgs | None = None,
) -> OpenedModel:
    """The model in a directory, or the one that `hf:...` names, which is downloaded if need be.

    iteration: which checkpoint of several; trusted: of pickled files build whatever they name, which runs their code; vocab_size: rows of the
    vocabulary, for files of GPT-NeoX, where padding cannot be told from them; args: settings in place of those that a checkpoint has. Raises CheckpointError when there is no model that can be read.
    """
    program = program_of_load(str(text))
    if program in (Program.HUGGING_FACE, Program.META) and args is not None:
        raise CheckpointError(f"{text} says by its own files what model it is: leave out the settings")
    if program is not Program.NEOX and vocab_size is not None:
        raise CheckpointError(
            f"{text} says by itself how many rows its vocabulary has: leave out vocab-size ({vocab_size})"
        )
    directory = _directory_of_name(str(text)) if is_hub_name(str(text)) else place(text)
    if program is Program.HUGGING_FACE:
        return open_hugging_face(directory, iteration=iteration, trusted=trusted)
    if program is Program.META:
        return open_meta(directory, iteration=iteration, trusted=trusted)
    if program is Program.NEOX:
        source, settings, rows = open_neox(
            directory, iteration=iteration, trusted=trusted, vocab_size=vocab_size, args=args
        )
        architecture = architecture_of(settings, vocab_size=rows)
        return OpenedModel(source, architecture, source.description, source.layout.directory, settings)
    ours = OwnCheckpoint(directory, iteration=iteration, args=args)
    return OpenedModel(ours, ours.architecture, ours.description, ours.directory, ours.args)


def open_hugging_face(directory: Path, *, iteration: int | None = None, trusted: bool = False) -> OpenedModel:
    """The model of transformers in a directory. Errors as of `HuggingFaceSource`, and CheckpointError for an iteration, of which it has none."""
    _refuse_iteration(directory, iteration)
    source = HuggingFaceSource(directory, trusted=trusted)
    return OpenedModel(source, source.architecture, source.description, directory)


def open_meta(directory: Path, *, iteration: int | None = None, trusted: bool = False) -> OpenedModel:
    """The Llama of Meta in a directory. Errors as of `MetaLlamaSource`, and CheckpointError for an iteration, of which it has none."""
    _refuse_iteration(directory, iteration)
    source = MetaLlamaSource(directory, trusted=trusted)
    return OpenedModel(source, source.architecture, source.description, directory)


def _directory_of_name(name: str) -> Path:
    from megatron.conversion.hub.directory import model_directory  # a slow import, which every run would pay for

    return model_directory(name)


def _refuse_iteration(directory: Path, iteration: int | None) -> None:
    if iteration is not None:
        raise CheckpointError(
            f"{directory} is one model, not a directory of checkpoints: leave out the iteration ({iteration})"
        )
