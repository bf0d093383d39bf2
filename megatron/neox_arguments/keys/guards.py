"""Guards of a run: what is watched while it trains, and what is done when something goes wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Section


class GuardArgs(Group):
    """Copies that drift apart, numbers that are none, spikes of the loss, processes that hang."""

    check_desync: Integer = Field(0, ge=0)
    """Every so many iterations, and before every checkpoint, compare the bits of all weights that several processes hold, by a hash; a
    difference ends the run without saving and names the first such weight and the ranks. Compared are data and context ranks (with ZeRO 3
    only the small parameters it keeps whole), tensor ranks for parameters that are not divided, and stages that share a parameter. Data and
    context ranks get their weights anew in every update, so between them only what was damaged since is found. Costs less than 1 % at 100.
    0 never compares."""

    diagnose_nan: bool = True
    """When the loss or a gradient of a step is NaN or infinite, run the step again with every module watched, and name where the first such
    number comes from: module, forward or backward pass, rank, and the documents of the batch. Overflows of gradients in fp16 belong to its
    loss scale and are left to it. Costs nothing until it happens."""

    loss_spike: Section | None = None
    """What is done about sudden jumps of the loss: a section with policy, threshold, window and budget. Default: nothing is looked for."""

    step_timeout: Number = Field(480.0, ge=0)
    """Seconds without a finished step after which a run counts as hanging: every process prints where it is (its Python stack), the ones
    that do not answer or lag behind are named, and all exit. The first step, an evaluation and a checkpoint may take ten times as long, and
    no step is given up before four times the longest one so far. 0 waits for ever. The default speaks before the collectives do, which
    give up after ten minutes and know only their own rank."""


class LossSpikeKeys(Group):
    """Which jumps of the loss are spikes, and what is done about them."""

    policy: Literal["warn", "skip", "rollback"] = Field(DERIVED)
    """`warn` prints a line. `skip` leaves out the update of such a step; it waits for the loss before every update. `rollback` loads the last
    checkpoint and goes on with the data behind the spike, so what lay between is not trained on. Must be given."""

    threshold: Number = Field(6.0, gt=0)
    """A loss is a spike when it lies this many robust standard deviations (1.4826 times the median distance from the median, at least 1 % of
    the median) above the median of the last `window` losses."""

    grad_norm_threshold: Number | None = Field(None, gt=0)
    """The same for the gradient norm, which often jumps before the loss. Default: it is not looked at."""

    window: Integer = Field(100, ge=4)
    """Steps that a step is compared with; half of them must be there before the first spike is seen."""

    budget: Integer = Field(10, ge=1)
    """How many updates may be skipped, or how often the run may go back, from its beginning to its end; one more ends it with an error."""
