"""When a run saves and what it says about it; how a checkpoint is written is `megatron.checkpointing`'s business."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.checkpointing.saving.save import take_snapshot, tensors_to_save
from megatron.checkpointing.saving.saver import Saver
from megatron.checkpointing.saving.source_version import source_version
from megatron.checkpointing.settings import settings_yaml
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import is_checkpoint_iteration
from megatron.training.data_ledger import DataLedger
from megatron.training.state import TrainState

LAST_CHANCE_SECONDS = 60.0
"""How long a rank that ends by an error waits for a save that is on its way."""


class Checkpointer:
    """Saves at the configured iterations, and at the end; does nothing in a run without `save`.

    ledger: what checkpoints say about the data. resumed_at: iteration of the checkpoint the run began from, 0 for none; a run that makes
    no step saves nothing new. began_from: that checkpoint. alive: called now and then while a save is waited for.
    further_files: called at each save, on all ranks, for contents of further files by name.
    """

    def __init__(
        self,
        args: NeoXArgs,
        engine: Engine,
        reporter: Reporter,
        ledger: DataLedger,
        *,
        resumed_at: int = 0,
        began_from: Path | None = None,
        alive: Callable[[], None] = lambda: None,
        further_files: Callable[[], Mapping[str, bytes]] = dict,
    ) -> None:
        self._args = args
        self._engine = engine
        self._reporter = reporter
        self._ledger = ledger
        self._further_files = further_files
        self._saver = Saver(args, world=engine.groups.world, alive=alive) if args.save else None
        if self._saver is not None and engine.groups.world.rank == 0:
            source_version()  # which is running; whoever edits it meanwhile does so for later runs
        self._copies: HostCopies | None = None
        if self._saver is not None and args.async_save:
            self._copies = HostCopies()
            self._copies.prepare(tensors_to_save(engine, save_optimizer=not args.no_save_optim))
        self._saved_at = resumed_at
        self.last = began_from
        """The newest complete checkpoint of this run, None before the first. After `settle` it is the same on all ranks."""

    def maybe_save(self, state: TrainState) -> None:
        """Save when the checkpoint scale says so."""
        if is_checkpoint_iteration(self._args, state.iteration):
            self.save(state)

    def go_on(self, ledger: DataLedger) -> None:
        """The run reads other data from now on, which checkpoints say by this ledger."""
        self._ledger = ledger

    def poll(self, state: TrainState) -> None:
        """Tell what was saved or uploaded since the last look."""
        if self._saver is None:
            return
        for report in self._saver.reports():
            self.last = report.saved or self.last
            self._reporter.event(state.iteration, report.values, report.text)

    def save_failed(self) -> bool:
        """Whether a save in the background has failed on this rank. The run should stop: `finish` then raises its error on all ranks."""
        return self._saver is not None and self._saver.failed

    def settle(self, state: TrainState) -> None:
        """Wait for what is on its way, and tell of it (collective). Raises the CheckpointError of a save that failed, on every rank."""
        if self._saver is not None:
            self._saver.wait()
            self.poll(state)

    def finish(self, state: TrainState) -> None:
        """Save the final state unless that is done or on its way; afterwards nothing runs in the background any more (collective).

        Raises CheckpointError on every rank when a save, this one or one before, has failed, or something could not be uploaded.
        """
        if self._saver is None:
            return
        self.settle(state)
        if state.iteration != self._saved_at:
            self._save(state, copies=None)  # nothing is left that could go on beside it
        self._saver.finish()
        self.poll(state)

    def give_last_chance(self) -> None:
        """This rank ends by an error: a save that is on its way gets a little time to become whole. Raises nothing."""
        if self._saver is not None:
            with contextlib.suppress(Exception):
                self._saver.wait(seconds=LAST_CHANCE_SECONDS)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint, or with `async_save` begin to write it, and drop the ones that `keep_last_n_checkpoints` no longer covers (collective)."""
        self._save(state, copies=self._copies)

    def _save(self, state: TrainState, *, copies: HostCopies | None) -> None:
        if self._saver is None:
            return
        began = time.perf_counter()
        self.settle(state)
        snapshot = take_snapshot(
            self._engine,
            iteration=state.iteration,
            run_state=state.to_dict(),
            config_yaml=settings_yaml(self._args),
            files={**self._ledger.files(state), **self._further_files()},
            save_optimizer=not self._args.no_save_optim,
            copies=copies,
        )
        write = self._saver.save if copies is None else self._saver.save_beside_training
        write(snapshot, began=began)
        self._saved_at = state.iteration
        self.poll(state)
