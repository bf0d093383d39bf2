"""`generate.py` runs one copy of the model, in the configured tensor- and pipeline-parallel layout, however many copies trained it.

Checkpoints hold whole tensors under layout-free names, so a model trained on 2 x 4 x 8 processes generates just as well on the
processes that one copy of it needs. Text grows token by token, so no ranks share its sequence.
"""

from __future__ import annotations

from pathlib import Path

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.types import whole_number
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues

FOLDED_SCRIPTS = ("generate.py",)


def fold_layout(values: ConfigValues, script: str) -> tuple[ConfigValues, str | None]:
    """The values with the layout folded, and a line that says so; as given, without a line, for other scripts.

    Batch sizes that counted data-parallel replicas have no meaning then and are taken back, the micro-batch stays. The copy stays on one
    machine, unless the config has several, says how many processes run on each, and the copy needs more.
    """
    tensor_ranks, stages = (_size(values, key) for key in ("model_parallel_size", "pipe_parallel_size"))
    if Path(script).name not in FOLDED_SCRIPTS or tensor_ranks is None or stages is None:
        return values, None
    processes = tensor_ranks * stages
    batches = ("train_batch_size", "rampup_batch_size", "batch_size", "gradient_accumulation_steps")
    dropped = (*batches, "global_num_gpus", "world_size")
    assignments = [f"{key}=null" for key in dropped if values.values.get(key) is not None]
    if values.values.get("train_micro_batch_size_per_gpu") is None:
        assignments.append("train_micro_batch_size_per_gpu=1")
    if values.values.get("context_parallel_size") is not None:
        assignments.append("context_parallel_size=1")
    each = whole_number(values.values.get("num_gpus")) or processes
    machines = processes // each if _has_machines(values) and processes % each == 0 else 1
    assignments += [f"num_nodes={machines}", f"num_gpus={processes // machines}"]
    line = f"{Path(script).name} runs one copy of the model on {_in_words(tensor_ranks, stages)}"
    if stages > 1:
        line += " (pipe_parallel_size=0 needs fewer; a checkpoint loads into any layout)"
    return apply_overrides(values, assignments, source=f"deepy.py for {Path(script).name}"), line


def with_fewer_stages(conflict: Conflict, values: ConfigValues, script: str) -> Conflict:
    """Why there are too few machines or devices, said of the pipeline where a copy has one, with the way to need fewer; else as given."""
    tensor_ranks, stages = (_size(values, key) or 1 for key in ("model_parallel_size", "pipe_parallel_size"))
    counted = {"num_gpus", "num_nodes"} & set(conflict.keys)
    if Path(script).name not in FOLDED_SCRIPTS or stages == 1 or not counted:
        return conflict
    there = conflict.reason.partition(";")[0]
    return Conflict(
        ("pipe_parallel_size",),
        f"one copy of the model needs {tensor_ranks * stages} processes, and {there}; set it to 0, which needs {tensor_ranks}, "
        'or run on the CPU with CUDA_VISIBLE_DEVICES="" in the environment',
    )


def _size(values: ConfigValues, key: str) -> int | None:
    """How many ranks a key asks for; 0 means 1. None for what is no number, which is for the checks of the key to refuse."""
    value = values.values.get(key)
    return 1 if value is None or str(value) == "0" else whole_number(value)


def _has_machines(values: ConfigValues) -> bool:
    """Whether the config may mean several machines."""
    nodes, launcher = values.values.get("num_nodes"), values.values.get("launcher")
    return (whole_number(nodes) or 0) > 1 or bool(values.values.get("hostfile")) or launcher not in (None, "local")


def _in_words(tensor_ranks: int, stages: int) -> str:
    total = tensor_ranks * stages
    processes = "1 process" if total == 1 else f"{total} processes"
    return processes if stages == 1 else f"{processes}: {stages} pipeline stages x {tensor_ranks} tensor-parallel"
