"""Evaluation on the tasks of lm-eval (`eval_tasks`) while training: the weights of the running engine, results beside its metrics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import torch

from megatron.checkpointing.ranks import Ranks
from megatron.engine.protocol import Engine
from megatron.errors import NeoXError
from megatron.evaluation.evaluate import Evaluation, evaluate_tasks, prepare
from megatron.evaluation.files import check_can_write, results_path, write_results, write_samples
from megatron.evaluation.record import record
from megatron.evaluation.settings import evaluation_settings
from megatron.evaluation.tasks import Tasks
from megatron.generation.model import InferenceModel
from megatron.initialize import World
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size
from megatron.tokenizer.base import Tokenizer
from megatron.training.inference_view import inference_view
from megatron.training.state import TrainState


def find_tasks(args: NeoXArgs, world: World) -> Tasks | None:
    """The tasks of the configuration, their data read, for `TaskEvaluation` on the first rank; None on others (collective).

    Raises NeoXError when lm-eval, a task or its data is missing, or results cannot be written where they are to go.
    """
    everyone = world.groups.world
    Ranks(everyone, "looking where results go").first(lambda: check_can_write(_where(args)))
    return prepare(evaluation_settings(args), everyone, max_positions=args.max_position_embeddings)


class TaskEvaluation:
    """Runs the tasks whenever it is told to. Training then goes on to the bit as if it had not."""

    def __init__(
        self,
        args: NeoXArgs,
        world: World,
        engine: Engine,
        reporter: Reporter,
        tokenizer: Tokenizer,
        *,
        tasks: Tasks | None,
        alive: Callable[[], None],
    ) -> None:
        """tasks: those of `find_tasks`; alive: told with every batch that the run does not stand still."""
        self._args = args
        self._world = world
        self._engine = engine
        self._reporter = reporter
        self._tokenizer = tokenizer
        self._vocab_size = model_vocab_size(args, tokenizer.vocab_size)
        self._tasks = tasks
        self._alive = alive

    def run(self, state: TrainState) -> None:
        """Evaluate the weights on all tasks and report (collective). What fails is told, and does not end the run."""
        date = datetime.now()
        try:
            evaluation = self._evaluate()
        except NeoXError as error:
            self._reporter.message(
                f"eval_tasks failed after iteration {state.iteration}, and training goes on: {error}"
            )
            return
        finally:
            if self._world.device.type == "cuda":
                torch.cuda.empty_cache()  # the blocks it leaves have other sizes than those of training
        for task, metrics in evaluation.metrics.items():
            self._reporter.evaluation(f"tasks/{task}", iteration=state.iteration, values=metrics)
        if self._world.groups.rank == 0:
            self._write(evaluation, state, date)

    def _evaluate(self) -> Evaluation:
        return evaluate_tasks(
            self._model(),
            self._tokenizer,
            evaluation_settings(self._args),
            groups=self._world.groups,
            vocab_size=self._vocab_size,
            max_positions=self._args.max_position_embeddings,
            shares_requests=self._engine.weights_are_whole,
            tasks=self._tasks,
        )

    def _model(self) -> InferenceModel:
        model = inference_view(self._args, self._engine, vocab_size=self._vocab_size, device=self._world.device)
        first_layer = next(model.children())
        first_layer.register_forward_pre_hook(lambda *_: self._alive())
        return model

    def _write(self, evaluation: Evaluation, state: TrainState, date: datetime) -> None:
        settings, model = evaluation_settings(self._args), {"iteration": state.iteration}
        path = results_path(_where(self._args), date)
        try:
            write_results(path, record(self._args, settings, self._world, evaluation, model=model, date=date))
            if evaluation.samples:
                write_samples(path, evaluation.samples)
        except OSError as error:
            self._reporter.message(f"the results of eval_tasks cannot be written to {path} ({error})")


def _where(args: NeoXArgs) -> str:
    """What names of files with results begin with: of a run that says nothing, they lie beside its metrics."""
    return args.eval_results_prefix or f"{args.log_dir or 'logs'}/"
