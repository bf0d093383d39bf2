"""From the configuration to everything the loop uses: each function builds one thing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.replaced import check_what_is_replaced
from megatron.checkpointing.saving.room import warn_of_little_room
from megatron.checkpointing.saving.save import check_can_save
from megatron.checkpointing.settings import settings_warning
from megatron.components import OBJECTIVES
from megatron.conversion.loading import is_of_another_program, load_into_engine
from megatron.data.ledger.segments import Ledger
from megatron.engine.build import build_engine
from megatron.engine.protocol import Engine
from megatron.initialize import World
from megatron.log import get_logger
from megatron.model.gpt import build_layer_specs
from megatron.model.products import check_products
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext, LayerSpec
from megatron.monitor.reporter import Reporter, build_reporter
from megatron.mpu.shard import shard_of
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size, padded_vocab_size
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer
from megatron.training.characters import CharacterCount
from megatron.training.checkpointer import Checkpointer
from megatron.training.data_ledger import load_ledger, refuse_changed_data
from megatron.training.evaluate import Evaluator
from megatron.training.exit_policy import ExitPolicy
from megatron.training.forward_check import check_forward_pass, forward_pass, forward_pass_file
from megatron.training.guards.guard import Guards
from megatron.training.loop import Run
from megatron.training.pipeline_meter import PipelineMeter
from megatron.training.restart import going_on, minutes_of_job
from megatron.training.resumed_rates import settle_learning_rates
from megatron.training.rollback import Rollback
from megatron.training.run_data import RunData, open_data
from megatron.training.speed import build_speed
from megatron.training.state import TrainState

if TYPE_CHECKING:
    from megatron.training.tasks import TaskEvaluation

logger = get_logger(__name__)


def build_run(args: NeoXArgs, world: World) -> tuple[Run, TrainState]:
    """Build everything and load the checkpoint, if the configuration asks for one; `args.train_iters` is resolved."""
    args = going_on(args, world.groups.world)
    if args.save:
        check_can_save(args.save, group=world.groups.world)
    refuse_changed_data(args, world.groups.world)
    task_evaluation = prepare_tasks(args, world)
    tokenizer = build_tokenizer(args)
    vocab_size = model_vocab_size(args, tokenizer.vocab_size)
    padded_rows = padded_vocab_size(args, vocab_size)
    check_products(args, world.device)
    specs = build_layer_specs(args, vocab_size=vocab_size, padded_vocab_size=padded_rows)
    objective = OBJECTIVES.load(args.train_impl)(group=world.groups.tensor, vocab_size=vocab_size)
    engine = build_engine(args, specs=specs, objective=objective, groups=world.groups, device=world.device)
    if args.save:
        warn_of_little_room(args.save, engine, save_optimizer=not args.no_save_optim)
    state, began_from = load_state(args, engine, vocab_size=vocab_size)
    if args.save:
        check_what_is_replaced(args.save, iteration=state.iteration, began_from=began_from, group=world.groups.world)
    if began_from is not None:
        args = settle_learning_rates(args, began_from, world.groups.world, iteration=state.iteration)
    read_so_far = None if began_from is None else load_ledger(began_from, world.groups.world)

    def open_from(state: TrainState, before: Ledger | None) -> RunData:
        return open_data(args, world, tokenizer, state, reads_data=engine.reads_data, before=before)

    data = open_from(state, read_so_far)
    reporter = build_reporter(args, rank=world.groups.rank, resumed=state.iteration > 0)
    guards = Guards(args, engine, reporter)
    checkpointer = Checkpointer(
        args,
        engine,
        reporter,
        data.ledger,
        resumed_at=state.iteration,
        began_from=began_from,
        alive=guards.alive,
        further_files=lambda: forward_pass_file(args, engine, vocab_size=vocab_size),
    )
    run = Run(
        args=args,
        engine=engine,
        data=data,
        reporter=reporter,
        evaluator=build_evaluator(
            args,
            engine,
            reporter,
            data,
            tokenizer,
            tasks=task_evaluation and task_evaluation(engine, reporter, tokenizer, alive=guards.alive),
        ),
        checkpointer=checkpointer,
        exit_policy=build_exit_policy(args, world, checkpointer),
        speed=build_speed(args, vocab_size=padded_rows, device=world.device),
        parameters=count_parameters(specs),
        guards=guards,
        meter=PipelineMeter(engine, interval=args.log_interval),
        roll_back=Rollback(engine, checkpointer, reporter, open_from),
    )
    return run, state


def prepare_tasks(args: NeoXArgs, world: World) -> Callable[..., TaskEvaluation] | None:
    """What makes the evaluation on the tasks of the configuration from an engine (collective); None where there are none.

    Raises NeoXError when they cannot be run, before anything else is built.
    """
    if not args.eval_tasks:
        return None
    # Late: few runs have tasks, and every start would take longer.
    from megatron.training.tasks import TaskEvaluation, find_tasks

    return partial(TaskEvaluation, args, world, tasks=find_tasks(args, world))


def build_evaluator(
    args: NeoXArgs,
    engine: Engine,
    reporter: Reporter,
    data: RunData,
    tokenizer: Tokenizer,
    *,
    tasks: TaskEvaluation | None,
) -> Evaluator:
    """Evaluates on the validation and test sets of the run's data, and on its tasks."""
    factory, datasets = data.factory, data.datasets
    count_characters = partial(CharacterCount, tokenizer, engine.groups) if args.char_level_ppl else None
    return Evaluator(
        engine,
        reporter,
        validation={name: factory.evaluation(dataset) for name, dataset in datasets.valid.items()},
        test=None if datasets.test is None else factory.evaluation(datasets.test),
        eval_interval=args.eval_interval,
        eval_iters=args.eval_iters,
        tasks=tasks,
        tasks_interval=args.eval_tasks_interval,
        count_characters=count_characters,
    )


def build_exit_policy(args: NeoXArgs, world: World, checkpointer: Checkpointer) -> ExitPolicy:
    """Ends the run as configured, and when a save of its checkpointer has failed."""
    assert args.train_iters is not None, "resolve_epochs comes first"
    return ExitPolicy(
        train_iters=args.train_iters,
        world=world.groups.world,
        exit_interval=args.exit_interval,
        exit_minutes=args.exit_duration_minutes,
        minutes=minutes_of_job,
        save_failed=checkpointer.save_failed,
    )


def load_state(args: NeoXArgs, engine: Engine, *, vocab_size: int) -> tuple[TrainState, Path | None]:
    """Load the configured checkpoint into the engine; with `finetune` its weights alone, counting from 0, as of most models of other programs.

    Gives the checkpoint, too, where the run goes on from one of ours. vocab_size: rows of the model.
    """
    if not args.load:
        return TrainState(), None
    if is_of_another_program(args.load, engine.groups.world):
        if args.checkpoint_validation_with_forward_pass and engine.groups.world.rank == 0:
            logger.warning("%s keeps no losses that could be compared; the checkpoints of this run will", args.load)
        return TrainState.from_dict(load_into_engine(args, engine, vocab_size=vocab_size)), None
    loaded = load_checkpoint(
        args.load,
        engine,
        iteration=args.iteration,
        load_optimizer=not (args.no_load_optim or args.finetune),
        if_exists=args.load_if_exists,
        verification=args.verify_checkpoint,
    )
    if loaded is not None and engine.groups.world.rank == 0:
        warning = settings_warning(loaded.path, args)
        if warning:
            logger.warning(warning)
    if loaded is not None and args.checkpoint_validation_with_forward_pass:
        check_forward_pass(loaded.path, forward_pass(args, engine, vocab_size=vocab_size), engine.groups.world)
    if loaded is None or args.finetune:
        return TrainState(), None
    return TrainState.from_dict(loaded.run_state), loaded.path


def count_parameters(specs: Sequence[LayerSpec]) -> int:
    """Parameters of the whole model, whatever the layout: tied ones once, vocabulary padding not at all."""
    model = SequentialModel(specs, BuildContext(device="meta"), seed=None)
    return sum(math.prod(shard_of(parameter).logical_shape) for parameter in model.parameters())
