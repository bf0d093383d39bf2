"""The config's layout on the page of `deepy.py plan`: grid, batch, memory by component, and the variants that save memory."""

from __future__ import annotations

from dataclasses import fields, replace

from megatron import text
from megatron.neox_arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.host_memory import peak_host_memory
from megatron.planning.memory.sizes import Sizes
from megatron.planning.memory.stage_activations import stage_activations
from megatron.planning.memory.stage_memory import (
    CUDA_ALLOWANCE,
    StageMemory,
    memory_by_stage,
    padded_rows,
    peak_memory,
    stage_layers,
)
from megatron.planning.search.candidates import divisors
from megatron.planning.search.search import COMMUNICATION, largest_micro_batch
from megatron.planning.study import Study


def layout_lines(study: Study, layout: Layout) -> list[str]:
    """The section as lines."""
    stages = memory_by_stage(study.args, layout, vocab_size=study.vocabulary.size)
    fullest = max(range(len(stages)), key=lambda stage: stages[stage].total)
    where = (
        f"a device of stage {fullest + 1} of {len(stages)}, the one that needs most"
        if len(stages) > 1
        else "each device"
    )
    host = peak_host_memory(study.args, layout, vocab_size=study.vocabulary.size)
    return [
        *text.facts([("grid", grid(layout)), ("batch", batch(study, layout))]),
        f"  memory of {where}, when it is fullest:",
        *text.indent(memory_table(stages[fullest]), 4),
        *text.facts([("host memory", f"{text.memory(host)} a device")] if host else []),
        *text.facts([("verdict", verdict(study, stages[fullest])), ("micro-batch", micro_batches(study, layout))]),
        "  activations after the forward pass, kept or recomputed, and the total of the fullest moment:",
        *text.indent(variant_table(study, layout), 4),
    ]


def grid(layout: Layout) -> str:
    """`96 devices = pipeline 4 x data 12 x tensor 2, ZeRO stage 1, ...`."""
    sequence = ", sequence parallel" if layout.sequence_parallel else ""
    zero = f"ZeRO stage {layout.zero_stage}" + (" (runs as 1)" if layout.zero_stage == 0 else "")
    recompute = ", activations recomputed" if layout.recompute else ", activations kept"
    return f"{layout.world_size} device{'s' if layout.world_size > 1 else ''} = {layout}, {zero}{sequence}{recompute}"


def batch(study: Study, layout: Layout) -> str:
    """Samples and tokens of a step, and the bubble."""
    samples = layout.micro_batch * layout.accumulation * layout.data
    assumed = "" if study.has_batch else " (no batch size is given: one sample a device is assumed)"
    return (
        f"{samples:,} samples = micro-batch {layout.micro_batch} x accumulation {layout.accumulation} x data {layout.data}, "
        f"{samples * study.args.seq_length:,} tokens a step{assumed}"
    )


def memory_table(memory: StageMemory) -> list[str]:
    """The components and their sum."""
    names = [field.name for field in fields(memory)]
    sizes = [text.memory(getattr(memory, name)) for name in names]
    return text.table([[*names, "total"], [*sizes, text.memory(memory.total)]], right=range(len(names) + 1))


def verdict(study: Study, memory: StageMemory) -> str:
    """Whether it fits, into what, and what is in the way."""
    device, usable = study.cluster.device, study.search.usable
    room = (
        f"{text.memory(usable)} usable: {text.memory(device.memory_bytes)} of {device.name} less {text.memory(CUDA_ALLOWANCE)} "
        f"for driver and libraries and {text.percent(COMMUNICATION)} for communication and fragmentation"
    )
    if memory.total <= usable:
        return f"FITS, {text.memory(usable - memory.total)} to spare ({room})"
    largest = max(fields(memory), key=lambda field: getattr(memory, field.name)).name
    return (
        f"DOES NOT FIT, {text.memory(memory.total - usable)} too much; the largest component is {largest}, "
        f"{text.memory(getattr(memory, largest))} ({room})"
    )


def micro_batches(study: Study, layout: Layout) -> str:
    """The largest micro-batch, and the largest that keeps the batch."""
    largest = largest_micro_batch(study.search, layout)
    samples = layout.micro_batch * layout.accumulation
    if largest == 0:
        return "not even one sample fits in this layout"
    keeping = divisors(samples, most=largest)[-1]
    same = f"{keeping} the largest that keeps the batch" if keeping != largest else "which keeps the batch"
    return f"{largest} is the largest that fits, {same}"


def variant_table(study: Study, layout: Layout) -> list[str]:
    """Activations and totals of the fullest stage, kept and recomputed: as the config has it, with sequence parallelism the other way
    (over several tensor ranks), and with flash attention in place of global attention."""
    args, other = study.args, replace(layout, sequence_parallel=not layout.sequence_parallel)
    rows = [
        ["", "kept", "total", "recomputed", "total"],
        _variant_row("this config", args, layout, study, given=layout),
    ]
    if layout.tensor > 1 and args.seq_length % (layout.context * layout.tensor) == 0:
        name = "with" if other.sequence_parallel else "without"
        rows.append(_variant_row(f"{name} sequence_parallel", args, other, study, given=layout))
    if "global" in args.attention_config:
        types = tuple("flash" if name == "global" else name for name in args.attention_config)
        with_flash = args.model_copy(update={"attention_config": types})
        rows.append(_variant_row("with flash attention (attention_config)", with_flash, layout, study))
    return [*text.table(rows, right=range(1, 5)), "* as the config has it"]


def _variant_row(name: str, args: NeoXArgs, layout: Layout, study: Study, *, given: Layout | None = None) -> list[str]:
    row = [name]
    for recompute in (False, True):
        variant = replace(layout, recompute=recompute)
        total = peak_memory(args, variant, vocab_size=study.vocabulary.size).total
        activations = most_activations(args, variant, vocab_size=study.vocabulary.size)
        row += [text.memory(activations), text.memory(total) + ("*" if variant == given else "")]
    return row


def most_activations(args: NeoXArgs, layout: Layout, *, vocab_size: int) -> int:
    """Bytes of activations of the stage with most of them: of all micro-batches in flight, and of blocks that are computed again."""
    rows, sizes = padded_rows(args, layout, vocab_size), Sizes.of(args, layout, "cuda")
    stages = (
        stage_activations(args, layout, sizes, layers, stage=stage, columns=rows // layout.tensor)
        for stage, layers in enumerate(stage_layers(args, layout, rows))
    )
    return max(activations.kept + activations.recomputed for activations in stages)
