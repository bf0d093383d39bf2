"""The trained model that a configuration names in `load`, ready to run, in the layout of the running processes.

Checkpoints hold whole tensors under layout-free names, so what was trained in one layout is loaded into any other.
"""

from __future__ import annotations

from functools import partial

from megatron.checkpointing.layout import checkpoint_candidates
from megatron.checkpointing.loading.load import LoadedCheckpoint
from megatron.checkpointing.loading.weights import load_weights
from megatron.checkpointing.places import place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.reach import asking
from megatron.checkpointing.settings import settings_warning
from megatron.conversion.loading import is_of_another_program, load_into_module
from megatron.errors import ConfigError
from megatron.generation.model import InferenceModel, build_inference_model
from megatron.initialize import World
from megatron.log import get_logger
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size
from megatron.tokenizer.base import Tokenizer

logger = get_logger(__name__)


def load_model(args: NeoXArgs, world: World, tokenizer: Tokenizer) -> InferenceModel:
    """The model of `args.load` (collective). Raises CheckpointError when there is none, or it does not fit the configuration."""
    return load_model_and_checkpoint(args, world, tokenizer)[0]


def load_model_and_checkpoint(
    args: NeoXArgs, world: World, tokenizer: Tokenizer
) -> tuple[InferenceModel, LoadedCheckpoint | None]:
    """As `load_model`, with the checkpoint that it was; None where the model is of another program."""
    if not args.load:
        raise ConfigError(['"load" is not set: name the directory of the checkpoints that hold the model'])
    vocab_size = model_vocab_size(args, tokenizer.vocab_size)
    group = world.groups.world
    is_foreign = is_of_another_program(args.load, group)
    if not is_foreign:
        Ranks(group, doing=f"looking into {args.load}").first(partial(_look_for_checkpoint, args.load, args.iteration))
    model = build_inference_model(args, vocab_size=vocab_size, groups=world.groups, device=world.device)
    if is_foreign:
        load_into_module(args, model, vocab_size=vocab_size, group=group)
        model.pack_weights()
        return model, None
    loaded = load_weights(args.load, model, iteration=args.iteration, group=group, verification=args.verify_checkpoint)
    warning = settings_warning(loaded.path, args) if group.rank == 0 else None
    if warning:
        logger.warning(warning)
    model.pack_weights()
    return model, loaded


def _look_for_checkpoint(load: str, iteration: int | None) -> None:
    """Raises CheckpointError, saying what is there, when there is no such checkpoint: before a model is built for it."""
    directory = place(load)
    with asking(directory):
        checkpoint_candidates(directory, iteration=iteration)
