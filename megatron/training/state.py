"""What changes during a run. Everything else is configuration, and never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class TrainState:
    """How far the run has come. iteration: optimizer steps tried, skipped ones included; consumed_*: of the global batches, those passed over
    after a spike of the loss included.

    spikes_handled: how often an update was left out or the run went back for a spike; recent_*: of the newest steps, oldest first, which
    spikes are measured by; empty in a run that looks for none.
    """

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    skipped_iterations: int = 0
    spikes_handled: int = 0
    recent_losses: tuple[float, ...] = ()
    recent_grad_norms: tuple[float, ...] = ()

    def advance(self, *, samples: int, tokens: int, skipped: bool) -> TrainState:
        """The state after one more step over `samples` sequences of `tokens` tokens in all."""
        return replace(
            self,
            iteration=self.iteration + 1,
            consumed_samples=self.consumed_samples + samples,
            consumed_tokens=self.consumed_tokens + tokens,
            skipped_iterations=self.skipped_iterations + skipped,
        )

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """From a checkpoint; counters it does not know yet stay at zero, those it no longer knows are dropped."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: _frozen(value) for name, value in values.items() if name in known})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
