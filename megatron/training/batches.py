"""The batches of a run: training from the step it is at, evaluation from the first held-out sample every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch, document_rules
from megatron.data.datasets import Datasets, build_datasets, iterations_for_epochs
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.environment import read_rank_environment
from megatron.initialize import World
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import BatchSchedule, batch_schedule
from megatron.neox_arguments.sequence_schedule import SequenceSchedule, sequence_schedule
from megatron.tokenizer.base import Tokenizer
from megatron.training.evaluate import BatchSource
from megatron.training.state import TrainState


def resolve_epochs(args: NeoXArgs) -> NeoXArgs:
    """The arguments with `train_epochs`, if given, turned into `train_iters`."""
    if args.train_epochs is None:
        return args
    iterations = iterations_for_epochs(args, epochs=args.train_epochs, schedule=batch_schedule(args))
    return args.with_train_iters(iterations)


@dataclass(frozen=True)
class BatchFactory:
    """Makes the batches of one rank. state: where training goes on; reads_data: whether this rank's pipeline stage needs batches.

    laid_out: for how many samples the training data was laid out when the run began, 0 in a new run. In another number they would come
    in another order, so it stays; where more are wanted, the first ones come again behind the last.
    """

    args: NeoXArgs
    world: World
    tokenizer: Tokenizer
    state: TrainState
    reads_data: bool
    laid_out: int = 0

    def build_datasets(self) -> Datasets:
        """The three parts, as long as the configured run needs them (collective)."""
        evaluation_samples = self.args.eval_iters * self.args.train_batch_size
        return build_datasets(
            self.args,
            train_samples=self.train_samples,
            valid_samples=evaluation_samples,
            test_samples=evaluation_samples,
            world=self.world.groups.world,
            local_rank=read_rank_environment().local_rank,
        )

    def train(self, datasets: Datasets) -> Iterator[Sequence[Batch] | None]:
        """The global batches of the steps that are left, as this rank's micro-batches: no sample is left out or seen again."""
        assert datasets.train is not None, "build_datasets refuses a run without training data"
        start = self.state.iteration
        loader = self._loader(
            datasets.train,
            start_step=start,
            steps=self._train_iters - start,
            workers=self.args.num_workers,
            schedule=self._schedule,
            lengths=sequence_schedule(self.args),
            wrap=self.laid_out > 0,
        )
        return iter(loader)

    def evaluation(self, dataset: SampleDataset) -> BatchSource:
        """A source of `eval_iters` global batches, which begins at the first sample again behind the last one."""
        # Read in this process: evaluations are short, and a second set of workers would only wait.
        full = BatchSchedule.constant(self.args.train_batch_size)
        loader = self._loader(dataset, start_step=0, steps=self.args.eval_iters, workers=0, schedule=full, wrap=True)
        return lambda: iter(loader)

    @property
    def train_samples(self) -> int:
        """How many samples the training data is laid out for."""
        return self.laid_out or self._schedule.samples_before(self._train_iters)

    @property
    def _train_iters(self) -> int:
        assert self.args.train_iters is not None, "resolve_epochs comes first"
        return self.args.train_iters

    @property
    def _schedule(self) -> BatchSchedule:
        """The batches of the run, going on at the next sample whatever batches it had so far."""
        return batch_schedule(self.args).going_on(step=self.state.iteration, samples=self.state.consumed_samples)

    @property
    def training_plan(self) -> BatchPlan:
        """Which samples this rank trains on in each step."""
        return self._plan(self._schedule)

    def _plan(self, schedule: BatchSchedule) -> BatchPlan:
        data = self.world.groups.data
        return BatchPlan(
            micro_batch=self.args.train_micro_batch_size_per_gpu,
            schedule=schedule,
            data_parallel_size=data.size,
            data_rank=data.rank,
        )

    def _loader(
        self,
        dataset: SampleDataset,
        *,
        start_step: int,
        steps: int,
        workers: int,
        schedule: BatchSchedule,
        lengths: SequenceSchedule | None = None,
        wrap: bool = False,
    ) -> StepLoader:
        return StepLoader(
            dataset,
            self._plan(schedule),
            vocab_size=self.tokenizer.vocab_size,
            device=self.world.device,
            start_step=start_step,
            steps=steps,
            wrap=wrap,
            rules=document_rules(self.args, eod_token=self.tokenizer.eod),
            lengths=lengths,
            num_workers=workers,
            tensor_group=self.world.groups.tensor,
            context_group=self.world.groups.context,
            reads_data=self.reads_data,
            dropout_seed=self.args.seed if self.args.hidden_dropout or self.args.attention_dropout else None,
        )
