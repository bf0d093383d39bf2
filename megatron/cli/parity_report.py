"""What `deepy.py parity` prints: what both runs are, their numbers step by step, the largest deviations, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from megatron import text
from megatron.cli.parity_configs import Compared, changed, kept, left_out
from megatron.cli.parity_result import TOLERANCE, Step, first_difference, largest_deviations
from megatron.cli.styled import Line, plain
from megatron.neox_arguments import NeoXArgs


def _yes(is_on: bool) -> str:
    return "yes" if is_on else "no"


def _heads(args: NeoXArgs) -> str:
    grouped = args.num_kv_heads != args.num_attention_heads
    return f"{args.num_attention_heads} ({args.num_kv_heads})" if grouped else str(args.num_attention_heads)


ROWS: dict[str, Callable[[NeoXArgs], object]] = {
    "processes": lambda args: args.global_num_gpus,
    "pipeline stages": lambda args: args.pipeline_stages,
    "data-parallel copies": lambda args: args.data_parallel_size,
    "context ranks": lambda args: args.context_parallel_size,
    "tensor ranks": lambda args: args.model_parallel_size,
    "sequence parallelism": lambda args: _yes(args.sequence_parallel),
    "ZeRO stage": lambda args: args.zero_stage,
    "recomputation": lambda args: _yes(args.checkpoint_activations),
    "micro-batch x accumulation": lambda args: (
        f"{args.train_micro_batch_size_per_gpu} x {args.gradient_accumulation_steps}"
    ),
    "samples a step": lambda args: args.train_batch_size,
    "sequence length": lambda args: args.seq_length,
    "layers": lambda args: args.num_layers,
    "width": lambda args: args.hidden_size,
    "heads (of keys)": _heads,
    "MLP width": lambda args: args.mlp_width,
}


def description(compared: Compared) -> Iterator[Line]:
    """What was kept, what was made smaller, what was left out, and what was changed so that the runs can be compared."""
    runs = (compared.full, compared.layout, compared.one_process)
    rows = [("", "config", "layout", "one process")]
    rows += [(title, *(str(read(args)) for args in runs)) for title, read in ROWS.items()]  # type: ignore[misc]
    yield from map(plain, text.indent(text.table(rows, right=(1, 2, 3)), 2))
    yield plain()
    facts = [("kept", ", ".join(kept(compared)) or "a plain model")]
    lost = left_out(compared.full, compared.layout)
    if lost:
        facts.append(("left out", f"{', '.join(lost)} (all are kept with --processes {compared.needed})"))
    facts.append(("changed", "; ".join(changed(compared.config))))
    yield from map(plain, text.facts(facts))


def numbers(steps: Sequence[Step]) -> Iterator[Line]:
    """The scalars of every step, and the deviation of its tensors."""
    rows = [("step", "loss: layout", "one process", "gradient norm: layout", "one process", "deviation", "of tensors")]
    for step in steps:
        loss, norm = step.scalars["loss"], step.scalars["grad_norm"]
        pairs = [f"{value:.9g}" for pair in (loss, norm) for value in (pair.layout, pair.one_process)]
        scalars = max(pair.deviation for pair in step.scalars.values())
        rows.append((str(step.iteration), *pairs, f"{scalars:.1e}", f"{step.worst_tensor()[1]:.1e}"))  # type: ignore[arg-type]
    yield from map(plain, text.indent(text.table(rows, right=range(7)), 2))
    yield plain()
    worst = [
        (f"largest of {found.kind}", f"{found.value:.1e}", f"step {found.step}", found.tensor)
        for found in largest_deviations(steps)
    ]
    yield from map(plain, text.indent(text.table(worst, right=(1,)), 2))


def verdict(steps: Sequence[Step]) -> Line:
    """The last line."""
    differing = first_difference(steps)
    tensors = len(steps[-1].tensors)
    if differing is None:
        worst = max((found.value for found in largest_deviations(steps)), default=0.0)
        return plain(
            f"equal: {len(steps)} steps and {tensors} tensors agree to {worst:.1e}; fp32 allows {TOLERANCE:.0e} (relative)",
            "bold green",
        )
    return plain(f"NOT EQUAL: first differing step {differing.iteration}, {_where(differing)}", "bold red")


def _where(step: Step) -> str:
    name, value = step.worst_tensor()
    scalars = [found for found in step.deviations() if not found.tensor and found.value > TOLERANCE]
    if value > TOLERANCE:
        count = sum(deviation > TOLERANCE for deviation in step.tensors.values())
        others = (
            f"; so {'does' if len(scalars) == 1 else 'do'} {' and '.join(f.kind for f in scalars)}" if scalars else ""
        )
        return f"tensor {name} deviates by {value:.1e} ({count} of {len(step.tensors)} deviate{others}); allowed is {TOLERANCE:.0e}"
    worst = max(scalars, key=lambda found: found.value)
    return f"no tensor, {worst.kind} deviates by {worst.value:.1e}; allowed is {TOLERANCE:.0e}"


def record(words: Sequence[str], compared: Compared, steps: Sequence[Step]) -> dict[str, Any]:
    """Everything as JSON; what is not finite is text."""
    differing = first_difference(steps)
    runs = {"config": compared.full, "layout": compared.layout, "one process": compared.one_process}
    return {
        "config": list(words),
        "equal": differing is None,
        "tolerance": TOLERANCE,
        "first_differing_step": None if differing is None else differing.iteration,
        "first_differing_tensor": None if differing is None else differing.worst_tensor()[0],
        "runs": {name: {title: read(args) for title, read in ROWS.items()} for name, args in runs.items()},
        "kept": kept(compared),
        "left_out": left_out(compared.full, compared.layout),
        "changed": changed(compared.config),
        "largest": [{**asdict(found), "value": _finite(found.value)} for found in largest_deviations(steps)],
        "steps": [_step_record(step) for step in steps],
    }


def _step_record(step: Step) -> dict[str, Any]:
    return {
        "iteration": step.iteration,
        "scalars": {
            key: {
                "layout": _finite(pair.layout),
                "one_process": _finite(pair.one_process),
                "deviation": _finite(pair.deviation),
            }
            for key, pair in step.scalars.items()
        },
        "tensors": {name: _finite(value) for name, value in step.tensors.items()},
    }


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
