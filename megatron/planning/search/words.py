"""A layout as `key=value` words for the command line: those that turn a configuration's layout into another."""

from __future__ import annotations

from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.layout import Layout

BATCH_KEYS = ("train_micro_batch_size_per_gpu", "batch_size", "train_batch_size", "gradient_accumulation_steps")
"""Keys that say how large a batch is, and how it is gone through."""


def words_for(layout: Layout, *, values: ConfigValues, given: Layout | None) -> tuple[str, ...]:
    """What to add to the command line of the config in `values`, in the spellings it uses. given: the layout it has now, None when that
    is not legal, so that everything is said."""
    present = {key for key, value in values.values.items() if value is not None}
    micro: list[str] = [key for key in ("train_micro_batch_size_per_gpu", "batch_size") if key in present]
    section = values.values.get("zero_optimization")
    stage = ["zero_stage"] if "zero_stage" in present else []
    if not stage or (isinstance(section, dict) and "stage" in section):
        stage.append("zero_optimization.stage")

    def changes(setting: str) -> bool:
        return given is None or getattr(given, setting) != getattr(layout, setting)

    settings: list[tuple[list[str], str, bool]] = [
        (["pipe_parallel_size"], str(layout.pipeline), changes("stages")),
        (["model_parallel_size"], str(layout.tensor), changes("tensor")),
        (["context_parallel_size"], str(layout.context), changes("context") and "context_parallel_size" in present),
        (["sequence_parallel"], _boolean(layout.sequence_parallel), changes("sequence_parallel")),
        (stage, str(layout.zero_stage), changes("zero_stage")),
        (
            micro or ["train_micro_batch_size_per_gpu"],
            str(layout.micro_batch),
            changes("micro_batch") or not present & set(BATCH_KEYS),
        ),
        (["gradient_accumulation_steps"], str(layout.accumulation), changes("accumulation")),
        (["checkpoint_activations"], _boolean(layout.recompute), changes("recompute")),
    ]
    return tuple(f"{key}={value}" for keys, value, is_needed in settings if is_needed for key in keys)


def _boolean(value: bool) -> str:
    return "true" if value else "false"
