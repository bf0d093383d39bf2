"""The batches of a run: training from the step it is at, evaluation from the first held-out sample every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch
from megatron.data.datasets import Datasets, build_datasets, iterations_for_epochs
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.initialize import World
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.training.evaluate import BatchSource


def resolve_epochs(args: NeoXArgs) -> NeoXArgs:
    """The arguments with `train_epochs`, if given, turned into `train_iters`."""
    if args.train_epochs is None:
        return args
    iterations = iterations_for_epochs(args, epochs=args.train_epochs, global_batch=args.train_batch_size)
    return args.with_train_iters(iterations)


@dataclass(frozen=True)
class BatchFactory:
    """Makes the batches of one rank. reads_data: whether its pipeline stage needs any."""

    args: NeoXArgs
    world: World
    tokenizer: Tokenizer
    reads_data: bool

    def build_datasets(self) -> Datasets:
        """The three parts, as long as the configured run needs them (collective)."""
        evaluation_samples = self.args.eval_iters * self.args.train_batch_size
        return build_datasets(
            self.args,
            train_samples=self._train_iters * self.args.train_batch_size,
            valid_samples=evaluation_samples,
            test_samples=evaluation_samples,
            world=self.world.groups.world,
        )

    def train(self, datasets: Datasets, *, start_step: int) -> Iterator[Sequence[Batch] | None]:
        """The global batches of steps `start_step` to the last, as this rank's micro-batches."""
        assert datasets.train is not None, "build_datasets refuses a run without training data"
        steps = self._train_iters - start_step
        return iter(self._loader(datasets.train, start_step=start_step, steps=steps, workers=self.args.num_workers))

    def evaluation(self, dataset: SampleDataset | None) -> BatchSource | None:
        """A source of `eval_iters` global batches; None without data."""
        if dataset is None:
            return None
        # Read in this process: evaluations are short, and a second set of workers would only wait.
        loader = self._loader(dataset, start_step=0, steps=self.args.eval_iters, workers=0, wrap=True)
        return lambda: iter(loader)

    @property
    def _train_iters(self) -> int:
        assert self.args.train_iters is not None, "resolve_epochs comes first"
        return self.args.train_iters

    def _loader(
        self, dataset: SampleDataset, *, start_step: int, steps: int, workers: int, wrap: bool = False
    ) -> StepLoader:
        data = self.world.groups.data
        return StepLoader(
            dataset,
            BatchPlan(
                micro_batch=self.args.train_micro_batch_size_per_gpu,
                gradient_accumulation_steps=self.args.gradient_accumulation_steps,
                data_parallel_size=data.size,
                data_rank=data.rank,
            ),
            vocab_size=self.tokenizer.vocab_size,
            device=self.world.device,
            start_step=start_step,
            steps=steps,
            wrap=wrap,
            eod_token=self.tokenizer.eod if self.args.eod_mask_loss else None,
            num_workers=workers,
            tensor_group=self.world.groups.tensor,
            reads_data=self.reads_data,
        )
