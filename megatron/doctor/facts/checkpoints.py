"""What the checkpoints of a run will take: their size, by the number of parameters, and how many there will be at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import is_checkpoint_iteration, padded_vocab_size
from megatron.neox_arguments.resolving.checks.stores import protocol_of
from megatron.planning.model.parameters import count_parameters
from megatron.planning.model.vocabulary import find_vocabulary

WEIGHTS, MOMENTS = 4, 8
"""Bytes of a parameter in a checkpoint: fp32 weights, and Adam's two moments in fp32."""


@dataclass(frozen=True)
class CheckpointNeeds:
    """directory: where they lie; bytes: of one; at_once: how many there will be together, at most; present: how many are there already."""

    directory: str
    bytes: int
    at_once: int
    present: int
    is_assumed: bool = False
    """Whether the vocabulary, and so the size, may be another."""


def checkpoint_needs(args: NeoXArgs) -> CheckpointNeeds | None:
    """Of a config that saves into a directory; None of one that saves nothing, or into a store."""
    if args.save is None or protocol_of(args.save) not in (None, "file", "local"):
        return None
    directory = args.save.partition("://")[2] or args.save
    vocabulary = find_vocabulary(args)
    parameters = count_parameters(args, vocab_size=padded_vocab_size(args, vocabulary.size))
    folder = Path(directory)
    present = sum(1 for path in folder.glob("global_step*") if path.is_dir()) if folder.is_dir() else 0
    each = parameters * (WEIGHTS if args.no_save_optim else WEIGHTS + MOMENTS)
    return CheckpointNeeds(directory, each, checkpoints_at_once(args), present, vocabulary.is_assumed)


def checkpoints_at_once(args: NeoXArgs) -> int:
    """Those of the whole run, or those that are kept and the one being written, before which none is deleted."""
    if args.train_iters is None:
        return (args.keep_last_n_checkpoints or 0) + 1
    written = sum(is_checkpoint_iteration(args, iteration) for iteration in range(args.train_iters + 1))
    kept = args.keep_last_n_checkpoints
    return max(1, written if kept is None else min(written, kept + 1))
