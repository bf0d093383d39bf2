"""From the configuration to everything the loop uses: each function builds one thing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from megatron.checkpointing.load import load_checkpoint
from megatron.checkpointing.save import check_can_save
from megatron.checkpointing.settings import settings_warning
from megatron.components import OBJECTIVES
from megatron.engine.build import build_engine
from megatron.engine.protocol import Engine
from megatron.initialize import World
from megatron.log import get_logger
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext, LayerSpec
from megatron.monitor.reporter import build_reporter
from megatron.mpu.shard import shard_of
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.tokenizer.build import build_tokenizer
from megatron.training.batches import BatchFactory
from megatron.training.checkpointer import Checkpointer
from megatron.training.evaluate import Evaluator
from megatron.training.exit_policy import ExitPolicy
from megatron.training.loop import Run
from megatron.training.speed import build_speed
from megatron.training.state import TrainState

logger = get_logger(__name__)


def build_run(args: NeoXArgs, world: World) -> tuple[Run, TrainState]:
    """Build everything and load the checkpoint, if the configuration asks for one; `args.train_iters` is resolved."""
    assert args.train_iters is not None, "resolve_epochs comes first"
    if args.save:
        check_can_save(args.save, group=world.groups.world)
    tokenizer = build_tokenizer(args)
    vocab_rows = padded_vocab_size(args, tokenizer.vocab_size)
    specs = build_layer_specs(args, vocab_size=tokenizer.vocab_size, padded_vocab_size=vocab_rows)
    objective = OBJECTIVES.load(args.train_impl)(group=world.groups.tensor, vocab_size=tokenizer.vocab_size)
    engine = build_engine(args, specs=specs, objective=objective, groups=world.groups, device=world.device)
    state = load_state(args, engine)

    factory = BatchFactory(args, world, tokenizer, state, reads_data=engine.reads_data)
    datasets = factory.build_datasets()
    reporter = build_reporter(args, rank=world.groups.rank, resumed=state.iteration > 0)
    evaluator = Evaluator(
        engine,
        reporter,
        validation=factory.evaluation(datasets.valid),
        test=factory.evaluation(datasets.test),
        eval_interval=args.eval_interval,
        eval_iters=args.eval_iters,
    )
    run = Run(
        args=args,
        engine=engine,
        batches=factory.train(datasets),
        reporter=reporter,
        evaluator=evaluator,
        checkpointer=Checkpointer(args, engine, reporter, resumed_at=state.iteration),
        exit_policy=ExitPolicy(
            train_iters=args.train_iters, exit_interval=args.exit_interval, world=world.groups.world
        ),
        speed=build_speed(args, vocab_size=vocab_rows, device=world.device),
        parameters=count_parameters(specs),
    )
    return run, state


def load_state(args: NeoXArgs, engine: Engine) -> TrainState:
    """Load the configured checkpoint into the engine; with `finetune` its weights alone, counting from 0."""
    if not args.load:
        return TrainState()
    loaded = load_checkpoint(
        args.load,
        engine,
        iteration=args.iteration,
        load_optimizer=not (args.no_load_optim or args.finetune),
        if_exists=args.load_if_exists,
    )
    if loaded is not None and engine.groups.world.rank == 0:
        warning = settings_warning(loaded.path, args)
        if warning:
            logger.warning(warning)
    if loaded is None or args.finetune:
        return TrainState()
    return TrainState.from_dict(loaded.run_state)


def count_parameters(specs: Sequence[LayerSpec]) -> int:
    """Parameters of the whole model, whatever the layout: tied ones once, vocabulary padding not at all."""
    model = SequentialModel(specs, BuildContext(device="meta"), seed=None)
    return sum(math.prod(shard_of(parameter).logical_shape) for parameter in model.parameters())
