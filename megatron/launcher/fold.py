"""Scripts that run one replica of the model without a pipeline, whatever layout it was trained in.

Checkpoints hold whole tensors under layout-free names, so a model trained on 2 x 4 x 8 processes generates just as well on the
`model_parallel_size` processes that one copy of it needs. Text grows token by token, so no ranks share its sequence.
"""

from __future__ import annotations

from pathlib import Path

from megatron.neox_arguments.keys.types import whole_number
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues

FOLDED_SCRIPTS = ("generate.py", "eval.py")


def fold_layout(values: ConfigValues, script: str) -> tuple[ConfigValues, str | None]:
    """The values with the layout folded, and a line that says so; as given, without a line, for other scripts.

    Batch sizes that counted data-parallel replicas have no meaning then and are taken back, the micro-batch stays.
    """
    tensor_ranks = whole_number(values.values.get("model_parallel_size", 1))
    if Path(script).name not in FOLDED_SCRIPTS or tensor_ranks is None:
        return values, None
    batches = ("train_batch_size", "rampup_batch_size", "batch_size", "gradient_accumulation_steps")
    dropped = (*batches, "global_num_gpus", "world_size")
    assignments = [f"{key}=null" for key in dropped if values.values.get(key) is not None]
    if values.values.get("train_micro_batch_size_per_gpu") is None:
        assignments.append("train_micro_batch_size_per_gpu=1")
    if values.values.get("context_parallel_size") is not None:
        assignments.append("context_parallel_size=1")
    assignments += ["pipe_parallel_size=0", "num_nodes=1", f"num_gpus={tensor_ranks}"]
    processes = "1 process" if tensor_ranks == 1 else f"{tensor_ranks} processes"
    line = f"{Path(script).name} runs one copy of the model: pipe_parallel_size 0 on {processes} (a checkpoint loads into any layout)"
    return apply_overrides(values, assignments, source=f"deepy.py for {Path(script).name}"), line
