"""The story of `eval.py`: find the tasks, load a trained model in any layout, run it on them, and write down what came out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console

from megatron.checkpointing.ranks import Ranks
from megatron.errors import DataError
from megatron.evaluation.evaluate import Evaluation, evaluate_tasks, prepare
from megatron.evaluation.files import check_can_write, results_path, write_results, write_samples
from megatron.evaluation.identity import identify
from megatron.evaluation.record import record
from megatron.evaluation.settings import evaluation_settings
from megatron.evaluation.table import results_table
from megatron.generation.load import load_model_and_checkpoint
from megatron.initialize import join_world, shutdown
from megatron.log import configure_logging
from megatron.mpu.groups import build_saving_group
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size
from megatron.tokenizer.build import build_tokenizer


def evaluate(args: NeoXArgs) -> None:
    """Run `eval_tasks` on the model in `load` (every rank calls this); rank 0 prints a table and writes the results."""
    date = datetime.now()
    world = join_world(args)
    configure_logging(world.groups.rank)
    settings = evaluation_settings(args)
    tokenizer = build_tokenizer(args)
    everyone = world.groups.world
    Ranks(everyone, "looking where results go").first(lambda: check_can_write(args.eval_results_prefix))
    # Before the weights, as most mistakes are found here.
    tasks = prepare(settings, everyone, max_positions=args.max_position_embeddings)
    model, checkpoint = load_model_and_checkpoint(args, world, tokenizer)
    # Now, as a run that goes on may remove or replace the checkpoint meanwhile. Reading the files of other programs may take long.
    identity = Ranks(build_saving_group(everyone), "reading what is evaluated").first(
        lambda: identify(args, checkpoint)
    )
    evaluation = evaluate_tasks(
        model,
        tokenizer,
        settings,
        groups=world.groups,
        vocab_size=model_vocab_size(args, tokenizer.vocab_size),
        max_positions=args.max_position_embeddings,
        tasks=tasks,
    )
    if everyone.rank == 0:
        content = record(args, settings, world, evaluation, model=identity, date=date)
        _tell(args, evaluation, content, date)
    shutdown()


def _tell(args: NeoXArgs, evaluation: Evaluation, content: Mapping[str, Any], date: datetime) -> None:
    """Show the table, write the files, and say where they are."""
    screen = Console(highlight=False, soft_wrap=True)
    for line in ["", *results_table(evaluation.results), ""]:
        screen.print(line, markup=False)
    path = results_path(args.eval_results_prefix, date)
    try:
        write_results(path, content)
        if evaluation.samples:
            screen.print(f"examples and answers are in {write_samples(path, evaluation.samples)}", markup=False)
    except OSError as error:
        raise DataError(
            f"results cannot be written to {path} and beside it ({error.strerror}): the table above is all there is"
        ) from error
    screen.print(f"results are in {path}", markup=False)
