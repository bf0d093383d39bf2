"""The loss that gradients are taken of."""

from __future__ import annotations

from torch import Tensor


def scaled_loss(loss_sum: Tensor, factor: float) -> Tensor:
    """`factor` times the summed loss, a scalar; NaN, with gradients that are all NaN, where the loss is not finite.

    A loss may be infinite and have finite gradients. The optimizer looks at these alone and skips a step for them; so no update of a step
    without a finite loss is ever applied, and nobody has to wait for the loss to see to it.
    """
    finite = 1 + 0 * loss_sum.detach()  # 1 or NaN
    return loss_sum * factor * finite
