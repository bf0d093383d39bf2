"""The fp16 loss scale: read, restored, and raised at the right moment.

DeepSpeed's ZeRO optimizers raise a dynamic scale between the backward pass and the division of the gradients by it, so that every
`loss_scale_window` steps one update is made with half the gradient. Here a raise takes effect after the step.
"""

from __future__ import annotations

from typing import Any

from megatron.errors import NeoXError

FIELDS = {
    "loss_scale": "cur_scale",
    "loss_scale_iteration": "cur_iter",
    "loss_scale_last_overflow": "last_overflow_iter",
    "loss_scale_hysteresis": "cur_hysteresis",
}


class LossScale:
    """The loss scale of a DeepSpeed optimizer; a constant 1 in precisions that need none."""

    def __init__(self, optimizer: Any) -> None:
        self._scaler: Any = getattr(optimizer, "loss_scaler", None)
        self._raise_later = False
        if self._scaler is not None and self._scaler.dynamic:
            self._update = self._scaler.update_scale
            self._scaler.update_scale = self._after_backward

    @property
    def value(self) -> float:
        """The factor the next step's loss is multiplied by."""
        return 1.0 if self._scaler is None else float(self._scaler.cur_scale)

    def finish_step(self) -> None:
        """Count a step that was applied, once its gradients have been used."""
        if self._raise_later:
            self._raise_later = False
            self._update(False)

    def state(self) -> dict[str, float | int]:
        """What has to be saved of a dynamic scale; nothing otherwise."""
        if self._scaler is None or not self._scaler.dynamic:
            return {}
        return {name: getattr(self._scaler, field) for name, field in FIELDS.items()}

    def load(self, state: dict[str, float | int]) -> None:
        """Put back what `state` returned; without effect where the scale is not dynamic or nothing was saved."""
        for name, value in state.items():
            if name in FIELDS and self._scaler is not None and self._scaler.dynamic:
                setattr(self._scaler, FIELDS[name], value)

    def _after_backward(self, overflow: bool) -> None:
        if not overflow:
            self._raise_later = True
            return
        if self._scaler.cur_scale <= self._scaler.min_scale and self._scaler.cur_hysteresis == 1:
            raise NeoXError(
                f"the gradients overflow in fp16 even at the smallest loss scale, {self._scaler.min_scale:g}: training has diverged. "
                'Lower "lr", resume from an earlier checkpoint, or use "precision": "bfloat16"'
            )
        self._update(True)
