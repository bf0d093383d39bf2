"""The last question before an update: a judge is told the loss and the gradient norm of the step, and may keep the weights as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Judge = Callable[[float, float | None], bool]
"""(mean loss, gradient norm before clipping) of a step -> whether to apply its update; must answer the same on every rank."""


class UpdateGate:
    """Stands between DeepSpeed's optimizer, which has the gradients and their norm, and torch's inside it, which changes weights.

    A step that is kept out ends like any other: gradients are used up, and the weights that are sent around have not changed.
    Without a judge nothing is asked, computed or waited for.
    """

    def __init__(self, optimizer: Any) -> None:
        self.judge: Judge | None = None
        self._optimizer = optimizer
        self._loss: Callable[[], float] | None = None
        self._kept_out: bool | None = None
        for inner in (optimizer.optimizer, getattr(optimizer, "backup_optimizer", None)):
            if inner is not None:
                inner.step = self._guarded(inner.step)

    def begin(self, loss: Callable[[], float]) -> None:
        """A step begins; `loss` gives its mean loss once all is computed (collective)."""
        self._loss, self._kept_out = loss, None

    def end(self) -> bool:
        """The step is over; whether its update was kept out."""
        self._loss = None
        return self._kept_out is True

    def _guarded(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def ask_first(*arguments: Any, **options: Any) -> Any:
            return None if self._refuses() else step(*arguments, **options)

        return ask_first

    def _refuses(self) -> bool:
        """DeepSpeed updates one group of parameters after the other: the judge is asked once a step, before the first."""
        if self.judge is None or self._loss is None:
            return False
        if self._kept_out is None:
            norm = getattr(self._optimizer, "_global_grad_norm", None)
            self._kept_out = not self.judge(self._loss(), None if norm is None else float(norm))
        return self._kept_out
