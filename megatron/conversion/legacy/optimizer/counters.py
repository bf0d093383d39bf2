"""How far a run of GPT-NeoX had come, and the numbers of its optimizer, under the names that our runs and engines give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.conversion.legacy.layout import Layout
from megatron.conversion.reading.pickled import read_pickled
from megatron.neox_arguments import NeoXArgs

Scalars = dict[str, float | int]

_LOSS_SCALE = {
    "loss_scale": "cur_scale",
    "loss_scale_iteration": "cur_iter",
    "loss_scale_last_overflow": "last_overflow_iter",
    "loss_scale_hysteresis": "cur_hysteresis",
}


def read_run_state(layout: Layout, args: NeoXArgs, *, trusted: bool = False) -> dict[str, int]:
    """The counters of the training loop, as our checkpoints keep them. args: of the run that is to go on.

    An iteration is a step tried, here and there; `global_step100` was written after 100 of them. Samples that were not counted are as many
    as the run would read in these iterations, and tokens as many as its samples have. {} when nothing says how far the run had come.
    """
    file = layout.rank_files()[0]
    engine = read_pickled(file, trusted=trusted) if file.exists() else {}
    iteration = next(
        (engine[key] for key in ("iteration", "total_iters", "global_steps") if engine.get(key)), layout.iteration
    )
    if iteration < 0:
        return {}
    samples = int(engine.get("global_samples") or iteration * args.train_batch_size)
    return {
        "iteration": int(iteration),
        "consumed_samples": samples,
        "consumed_tokens": samples * args.seq_length,
        "skipped_iterations": int(engine.get("skipped_steps") or 0),
    }


def optimizer_scalars(saved: Mapping[str, Any], steps: frozenset[int], engine: Mapping[str, Any]) -> Scalars:
    """What `Engine.load_scalars` takes. steps: the optimizer's counts of its steps, which are all the same, or none.

    Elastic checkpoints of old versions lost the count of fused optimizers. It was that of the steps tried and not skipped, and of one more,
    with gradients of zero, that DeepSpeed makes at its start.
    """
    applied = int(engine.get("global_steps") or 0) - int(engine.get("skipped_steps") or 0)
    return {"optimizer_step": min(steps, default=applied + 1), **_loss_scale(saved)}


def _loss_scale(saved: Mapping[str, Any]) -> Scalars:
    """The state of a dynamic loss scale; {} of a constant one, which is configured."""
    if not saved.get("dynamic_loss_scale"):
        return {}
    values = vars(saved["loss_scaler"]) if "loss_scaler" in saved else saved
    return {name: values[key] for name, key in _LOSS_SCALE.items() if key in values}
