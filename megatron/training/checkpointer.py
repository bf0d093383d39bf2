"""When a run saves and what it says about it; how a checkpoint is written is `megatron.checkpointing`'s business."""

from __future__ import annotations

import time
from pathlib import Path

from megatron.checkpointing.retention import prune_checkpoints
from megatron.checkpointing.save import save_checkpoint
from megatron.checkpointing.settings import settings_yaml
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import is_checkpoint_iteration
from megatron.training.data_ledger import DataLedger
from megatron.training.state import TrainState


class Checkpointer:
    """Saves at the configured iterations, and at the end; does nothing in a run without `save`.

    ledger: what checkpoints say about the data. resumed_at: iteration of the checkpoint the run began from, 0 for none; a run that makes
    no step saves nothing new. began_from: that checkpoint.
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
    ) -> None:
        self._args = args
        self._engine = engine
        self._reporter = reporter
        self._ledger = ledger
        self._directory = Path(args.save) if args.save else None
        self._saved_at = resumed_at
        self.last = began_from
        """The newest checkpoint of this run, None before the first."""

    def maybe_save(self, state: TrainState) -> None:
        """Save when the checkpoint scale says so."""
        if is_checkpoint_iteration(self._args, state.iteration):
            self.save(state)

    def go_on(self, ledger: DataLedger) -> None:
        """The run reads other data from now on, which checkpoints say by this ledger."""
        self._ledger = ledger

    def finish(self, state: TrainState) -> None:
        """Save the final state unless it is on disk already."""
        if state.iteration != self._saved_at:
            self.save(state)

    def save(self, state: TrainState) -> None:
        """Write a checkpoint and drop the ones that `keep_last_n_checkpoints` no longer covers (collective)."""
        if self._directory is None:
            return
        started = time.perf_counter()
        path = save_checkpoint(
            self._directory,
            self._engine,
            iteration=state.iteration,
            run_state=state.to_dict(),
            config_yaml=settings_yaml(self._args),
            files=self._ledger.files(state),
            save_optimizer=not self._args.no_save_optim,
        )
        self._saved_at = state.iteration
        self.last = path
        self._reporter.message(f"saved {path} in {time.perf_counter() - started:.1f} s")
        if self._args.keep_last_n_checkpoints:
            prune_checkpoints(
                self._directory, keep_last=self._args.keep_last_n_checkpoints, group=self._engine.groups.world
            )
