"""Back to the last checkpoint after a spike of the loss, to go on with the data behind it.

The order of the data stays a function of the state: the iteration goes back, the number of samples consumed does not. A run that is
resumed later goes on in the same way, and one that is resumed from the older checkpoint meets the spike again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.data.ledger.segments import Ledger
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.training.checkpointer import Checkpointer
from megatron.training.data_ledger import load_ledger
from megatron.training.guards.spikes import Spike
from megatron.training.run_data import RunData
from megatron.training.state import TrainState


@dataclass(frozen=True)
class Rollback:
    """open_data: the data of the run from a state on, after what a ledger says."""

    engine: Engine
    checkpointer: Checkpointer
    reporter: Reporter
    open_data: Callable[[TrainState, Ledger | None], RunData]

    def __call__(self, state: TrainState, spike: Spike) -> tuple[TrainState, RunData | None]:
        """The state to go on with instead of `state`, and its data; the same and None where no checkpoint is there yet (collective)."""
        values = {"loss_spike": "rollback", "spike_value": spike.value, "spike_score": spike.score}
        told = f"spike in iteration {state.iteration}: {spike}"
        self.checkpointer.settle(state)
        last = self.checkpointer.last
        if last is None:
            self.reporter.event(state.iteration, values, f"{told}; there is no checkpoint to go back to yet")
            return state, None
        loaded = load_checkpoint(last, self.engine)
        assert loaded is not None, "only an optional checkpoint can be missing"
        then = TrainState.from_dict(loaded.run_state)
        passed_over = state.consumed_samples - then.consumed_samples
        now = replace(
            then,
            consumed_samples=state.consumed_samples,
            consumed_tokens=state.consumed_tokens,
            spikes_handled=state.spikes_handled,
        )
        data = self.open_data(now, load_ledger(last, self.engine.groups.world))
        self.checkpointer.go_on(data.ledger)
        self.reporter.event(
            state.iteration,
            {**values, "rolled_back_to": now.iteration, "samples_passed_over": passed_over},
            f"{told}; back to {last}, {passed_over} samples are passed over (rollback {now.spikes_handled})",
        )
        return now, data
