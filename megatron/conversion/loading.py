"""The one entrance for models of other programs that a configuration names in `load`: their weights in an engine or a module, at any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from megatron.checkpointing.loading.weights import clear_padding, weight_tensors
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.ranks import Ranks
from megatron.conversion.agreement import check_agreement, check_saved_settings
from megatron.conversion.fill import fill
from megatron.conversion.hub.names import is_hub_name
from megatron.conversion.legacy.optimizer.counters import read_run_state
from megatron.conversion.legacy.optimizer.source import NeoXState
from megatron.conversion.legacy.source import NeoXSource
from megatron.conversion.opening import open_hugging_face, open_meta
from megatron.conversion.source import TensorSource
from megatron.engine.protocol import Engine
from megatron.environment import read_rank_environment
from megatron.foreign import Program, program_of_load
from megatron.log import get_logger
from megatron.mpu.groups import Group
from megatron.neox_arguments import NeoXArgs

logger = get_logger(__name__)

T = TypeVar("T")


def is_of_another_program(load: str, group: Group) -> bool:
    """Whether `load` names a model of another program that can be read here, and no checkpoints of ours (all ranks of `group` call this)."""
    return _program(load, group) is not None


def load_into_engine(args: NeoXArgs, engine: Engine, *, vocab_size: int) -> Mapping[str, Any]:
    """Fill the engine from the model of another program that `args.load` names (all ranks call this); the loop's counters, {} to begin.

    Weights alone, from which a run begins; with a checkpoint of GPT-NeoX and neither `finetune` nor `no_load_optim` the optimizer's state as
    well, with which it goes on. vocab_size: rows of the vocabulary without padding. Raises CheckpointError on every rank when it is not the
    model that is configured, or cannot be read; the engine is untouched unless reading itself failed.
    """
    group = engine.groups.world
    source = open_for_all(args, group, vocab_size=vocab_size)
    goes_on = isinstance(source, NeoXSource) and not args.finetune
    tensors = engine.state_tensors()
    if not (goes_on and not args.no_load_optim):
        weights = {name: tensor for name, tensor in tensors.items() if is_weight(name)}
        fill(weights, source, group=group)
        engine.after_load()
        return _run_state(source, args, group) if goes_on else {}
    state = _on_each(
        group, f"loading {args.load}", lambda: NeoXState(_neox(source), args, trusted=args.trust_checkpoint)
    )
    fill(tensors, state, group=group)
    engine.load_scalars(state.scalars)
    engine.after_load()
    for remark in state.remarks if group.rank == 0 else []:
        logger.warning(remark)
    return state.run_state


def load_into_module(args: NeoXArgs, model: nn.Module, *, vocab_size: int, group: Group) -> None:
    """Fill a plain module from the model of another program that `args.load` names. Arguments and errors as of `load_into_engine`."""
    source = open_for_all(args, group, vocab_size=vocab_size)
    fill(weight_tensors(model), source, group=group, prepare=lambda: clear_padding(model))


def open_for_all(args: NeoXArgs, group: Group, *, vocab_size: int) -> TensorSource:
    """The model that `args.load` names, opened by every rank of `group` for itself, once it is known to be the one that is configured."""
    assert args.load
    load, trusted = args.load, args.trust_checkpoint
    program = _program(load, group)
    directory = _directory(load, group)
    if program is Program.NEOX:
        Ranks(group, doing=f"loading {load}").first(
            lambda: check_saved_settings(directory, args, vocab_size=vocab_size)
        )
        source = _on_each(
            group,
            f"loading {load}",
            lambda: NeoXSource(directory, args, vocab_rows=vocab_size, trusted=trusted, iteration=args.iteration),
        )
        for remark in source.remarks(args) if group.rank == 0 else []:
            logger.warning(remark)
        return source
    read = open_meta if program is Program.META else open_hugging_face
    opened = _on_each(group, f"loading {load}", lambda: read(directory, iteration=args.iteration, trusted=trusted))
    Ranks(group, doing=f"loading {load}").first(
        lambda: check_agreement(opened.architecture, args, vocab_size=vocab_size, description=opened.description)
    )
    return opened.source


def _program(load: str, group: Group) -> Program | None:
    return Ranks(group, doing=f"looking at {load}").first(lambda: program_of_load(load))


def _directory(load: str, group: Group) -> Path:
    if is_hub_name(load):
        from megatron.conversion.hub.directory import model_directory  # a slow import, which most runs do without

        return model_directory(load, group=group, local_rank=read_rank_environment().local_rank)
    return Path(load)


def _on_each(group: Group, doing: str, action: Callable[[], T]) -> T:
    """What `action` gives on this rank, once it has succeeded on all of `group`; it need not be one that can be sent."""
    results: list[T] = []
    Ranks(group, doing).every(lambda: results.append(action()))
    return results[0]


def _run_state(source: TensorSource, args: NeoXArgs, group: Group) -> Mapping[str, Any]:
    return Ranks(group, doing=f"loading {args.load}").first(
        lambda: read_run_state(_neox(source).layout, args, trusted=args.trust_checkpoint)
    )


def _neox(source: TensorSource) -> NeoXSource:
    assert isinstance(source, NeoXSource)
    return source
