"""The batches of a run: training from the step it is at, evaluation from the first held-out sample every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch, DocumentRules
from megatron.data.datasets import Datasets, build_datasets, iterations_for_epochs
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.environment import read_rank_environment
from megatron.initialize import World
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.base import Tokenizer
from megatron.training.evaluate import BatchSource
from megatron.training.state import TrainState


def resolve_epochs(args: NeoXArgs) -> NeoXArgs:
    """The arguments with `train_epochs`, if given, turned into `train_iters`."""
    if args.train_epochs is None:
        return args
    iterations = iterations_for_epochs(args, epochs=args.train_epochs, global_batch=args.train_batch_size)
    return args.with_train_iters(iterations)


@dataclass(frozen=True)
class BatchFactory:
    """Makes the batches of one rank. state: where training goes on; reads_data: whether this rank's pipeline stage needs batches."""

    args: NeoXArgs
    world: World
    tokenizer: Tokenizer
    state: TrainState
    reads_data: bool

    def build_datasets(self) -> Datasets:
        """The three parts, as long as the configured run needs them (collective)."""
        evaluation_samples = self.args.eval_iters * self.args.train_batch_size
        return build_datasets(
            self.args,
            train_samples=self._train_iters * self.args.train_batch_size + max(self._offset, 0),
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
            offset=self._offset,
        )
        return iter(loader)

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

    @property
    def _offset(self) -> int:
        """How far the samples consumed so far are from what this batch size would have consumed."""
        return self.state.consumed_samples - self.state.iteration * self.args.train_batch_size

    @property
    def _rules(self) -> DocumentRules | None:
        args = self.args
        if not (args.eod_mask_loss or args.reset_position_ids or args.reset_attention_mask):
            return None
        return DocumentRules(
            self.tokenizer.eod,
            mask_loss=args.eod_mask_loss,
            reset_positions=args.reset_position_ids,
            reset_attention=args.reset_attention_mask,
        )

    def _loader(
        self, dataset: SampleDataset, *, start_step: int, steps: int, workers: int, wrap: bool = False, offset: int = 0
    ) -> StepLoader:
        data = self.world.groups.data
        return StepLoader(
            dataset,
            BatchPlan(
                micro_batch=self.args.train_micro_batch_size_per_gpu,
                gradient_accumulation_steps=self.args.gradient_accumulation_steps,
                data_parallel_size=data.size,
                data_rank=data.rank,
                offset=offset,
            ),
            vocab_size=self.tokenizer.vocab_size,
            device=self.world.device,
            start_step=start_step,
            steps=steps,
            wrap=wrap,
            rules=self._rules,
            num_workers=workers,
            tensor_group=self.world.groups.tensor,
            reads_data=self.reads_data,
        )
