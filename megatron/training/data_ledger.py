"""The ledger of a run: gone on with when the run is resumed, unless its data has changed, and written into every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.ranks import Ranks
from megatron.data.datasets import Datasets, open_sources
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.ledger.changes import changes_of_data, changes_of_order, changes_of_sources
from megatron.data.ledger.record import order_keys, reach, record_segment, record_sources
from megatron.data.ledger.segments import LEDGER, Ledger, Segment, read_ledger
from megatron.errors import CheckpointError
from megatron.initialize import World
from megatron.log import get_logger
from megatron.mpu.groups import Group
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.validation_sets import UNNAMED
from megatron.training.state import TrainState

logger = get_logger(__name__)


class DataLedger:
    """What checkpoints say about the data; only the first rank knows it. dataset: what the last segment is read from."""

    def __init__(self, ledger: Ledger | None = None, dataset: SampleDataset | None = None) -> None:
        self._ledger = ledger
        self._dataset = dataset

    def files(self, state: TrainState) -> dict[str, bytes]:
        """The files of a checkpoint of this state, by name."""
        if self._ledger is None or self._dataset is None:
            return {}
        self._ledger = reach(self._ledger, self._dataset, state.iteration)
        return {LEDGER: self._ledger.to_json()}


def load_ledger(checkpoint: Path, group: Group) -> Ledger | None:
    """The ledger of a checkpoint that a run goes on from (all ranks of `group` call this); None, and a line about it, without one."""
    ledger = Ranks(group, doing=f"reading {checkpoint / LEDGER}").first(lambda: read_ledger(checkpoint))
    if ledger is None and group.rank == 0:
        logger.warning(
            "%s does not say which data it was trained on (it has no %s): whether that has changed since cannot be told",
            checkpoint,
            LEDGER,
        )
    return ledger


def refuse_changed_data(args: NeoXArgs, group: Group) -> None:
    """Before anything is built or loaded: compare the data with what the run that is to go on was reading (all ranks of `group` call this).

    Raises as `continue_ledger`, which compares again with the checkpoint that was loaded indeed, and DataError for data that is not there.
    """
    directory = args.load
    if not directory or args.finetune or args.allow_data_change:
        return

    def compare() -> None:
        try:
            checkpoint = find_checkpoint(directory, iteration=args.iteration)
        except CheckpointError:  # none yet, or none that is whole: loading says so
            return
        ledger = read_ledger(checkpoint)
        sources = record_sources(open_sources(args)["train"])
        if ledger is None:
            return
        if changes := changes_of_data(ledger.segments[-1], order_keys(args), sources):
            raise CheckpointError(_refusal(changes, ledger.iteration))

    Ranks(group, doing=f"comparing the data with that of the run in {directory}").first(compare)


def continue_ledger(
    args: NeoXArgs, world: World, state: TrainState, datasets: Datasets, *, before: Ledger | None, train_samples: int
) -> DataLedger:
    """The ledger of a run that goes on at `state` with `datasets`, laid out for `train_samples`, after what `before` says (collective).

    Raises CheckpointError on every rank when the steps to come would read something else than they were to read before, unless
    `allow_data_change` is set.
    """
    train = datasets.train
    assert train is not None, "build_datasets refuses a run without training data"

    def record() -> Ledger:
        segment = record_segment(
            args,
            train,
            datasets.sources["train"],
            iteration=state.iteration,
            schedule=batch_schedule(args).going_on(step=state.iteration, samples=state.consumed_samples),
            topology=world.groups.topology,
            num_samples=train_samples,
        )
        parts = {part: record_sources(sources) for part, sources in datasets.sources.items() if part != "train"}
        now = Ledger((segment,), parts, iteration=state.iteration)
        if before is None:
            return now
        continued = _continued(before, now, allow_change=args.allow_data_change)
        _tell_of_repetition(segment, len(train))
        return continued

    group = world.groups.world
    ledger = Ranks(group, doing="comparing the data with that of the checkpoint").first(record)
    return DataLedger(ledger, train) if group.rank == 0 else DataLedger()


def _continued(before: Ledger, now: Ledger, *, allow_change: bool) -> Ledger:
    """Both in one. `now` has one segment, which is `before`'s last one or follows it."""
    last, segment = before.segments[-1], now.segments[0]
    changes = changes_of_order(last, segment)
    if changes and not allow_change:
        raise CheckpointError(_refusal(changes, segment.iteration))
    if changes:
        logger.warning("the training data is no longer what it was (allow_data_change is set): %s", "; ".join(changes))
    for part in sorted(before.evaluation.keys() & now.evaluation.keys()):
        if others := changes_of_sources(before.evaluation[part], now.evaluation[part]):
            logger.warning(
                "evaluations on %s data cannot be compared with earlier ones: %s", _as_reported(part), "; ".join(others)
            )
    if segment.continues(last):
        found = zip(last.sources, segment.sources, strict=True)
        sources = tuple(replace(old, files=new.files, labels=new.labels) for old, new in found)
        segments: Sequence[Segment] = (*before.segments[:-1], replace(last, sources=sources))
    else:
        segments = (*(one for one in before.segments if one.iteration < segment.iteration), segment)
    return replace(now, segments=tuple(segments))


def _tell_of_repetition(segment: Segment, samples: int) -> None:
    wanted = segment.schedule.samples_before(segment.train_iters)
    if wanted > samples:
        logger.warning(
            "%d iterations take %d samples, and the data was laid out for %d when the run began: in iteration %d the first ones come again",
            segment.train_iters,
            wanted,
            samples,
            segment.schedule.steps_within(samples) + 1,
        )


def _as_reported(part: str) -> str:
    """What metrics call the data of a part: "valid_web" is validation/web."""
    return part.replace("valid", UNNAMED, 1).replace(f"{UNNAMED}_", f"{UNNAMED}/", 1)


def _refusal(changes: Sequence[str], steps_made: int) -> str:
    return (
        f"the data is not what this run was reading, and from iteration {steps_made + 1} on it would read something else than it was to: "
        f"{'; '.join(changes)}. Put it back as it was, or set allow_data_change to true to go on with the data as it is now, which the next "
        "checkpoint records"
    )
