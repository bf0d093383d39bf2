"""The page of `deepy.py plan`: what a run needs, whether it fits, how long it takes and how to lay it out, as sections of plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron import text
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import padded_vocab_size
from megatron.neox_arguments.explaining.schedules import configured_evaluation, growth
from megatron.neox_arguments.sequence_schedule import tokens_before
from megatron.planning.model.flops import flops_remarks, hardware_flops_per_token, model_flops_per_token
from megatron.planning.page.layout_facts import layout_lines
from megatron.planning.page.lr_plot import lr_plot
from megatron.planning.page.model_facts import model_lines
from megatron.planning.page.proposals import proposal_lines, repair_lines
from megatron.planning.search.throughput import HALF_PER_SINGLE
from megatron.planning.study import Study

DEFAULT_MFU = 0.4
"""Share of the peak that runs of large models reach when well laid out (PaLM 46 %, Llama 3 405B 38 to 43 %, MT-NLG 30 %)."""


@dataclass(frozen=True)
class Section:
    """A headline and what stands under it."""

    title: str
    lines: Sequence[str]


def page(study: Study, *, mfu: float = DEFAULT_MFU) -> list[Section]:
    """All sections, in reading order. mfu: the share of the peak that the time to finish is computed with."""
    sections = [Section("Model", model_lines(study))]
    if study.given is None:
        sections.append(Section("The config's layout is not legal on these devices", refusal_lines(study.refusal)))
    else:
        sections.append(Section("Layout of the config", layout_lines(study, study.given)))
        if not study.fits:
            sections.append(Section("The smallest change that fits", repair_lines(study)))
    if study.proposals or study.layouts_wanted:
        sections.append(Section("Layouts that fit, fastest first", proposal_lines(study)))
    sections.append(Section("Time", time_lines(study, mfu)))
    sections.append(Section("Learning rate", schedule_lines(study.args)))
    return sections


def refusal_lines(problems: Sequence[str]) -> list[str]:
    """The config's own sentences, without the excerpts."""
    return [line for problem in problems for line in text.wrap(problem.splitlines()[0], indent=2, hanging=2)]


def time_lines(study: Study, mfu: float) -> list[str]:
    """FLOPs, tokens, steps, and the days that they take at an assumed utilisation."""
    args, cluster = study.args, study.cluster
    rows = padded_vocab_size(args, study.vocabulary.size)
    per_token = model_flops_per_token(args, vocab_size=rows)
    tokens = args.train_batch_size * args.seq_length
    step = f"{text.flops(per_token * tokens)} for {tokens:,} tokens, {text.flops(per_token)} a token (forward and backward)"
    again = hardware_flops_per_token(args, vocab_size=rows) / per_token - 1
    if study.given is not None and again:
        step += f"; recomputation adds {text.percent(again)}"
    pairs = [("a step", step)]
    if study.given is not None and study.given.stages > 1:
        pairs.append(("bubble", bubble(study.given.stages, study.given.accumulation)))
    peak, source = peak_flops(study)
    seconds = per_token * tokens / (peak * cluster.world_size * mfu)
    pairs.append(("assumed", f"{text.percent(mfu)} of the peak (--mfu), {peak / 1e12:,.4g} TFLOP/s a device: {source}"))
    pace = f"{text.time(seconds)} a step, {text.count(tokens / seconds)} tokens a second"
    pairs.append(("speed", pace))
    pairs += growth(args).items()
    pairs.append(("the run", run_length(args, seconds, devices=cluster.world_size)))
    if args.data_path or args.train_data_paths:
        pairs.append(("evaluation", configured_evaluation(args)))
    pairs += [("remark", remark) for remark in remarks(study)]
    return text.facts(pairs)


def bubble(stages: int, accumulation: int) -> str:
    """The share of a step in which a stage waits for the first and the last micro-batch."""
    share = (stages - 1) / (accumulation + stages - 1)
    return f"{text.percent(share)} of a step: ({stages} - 1) / ({accumulation} + {stages} - 1), stages and accumulation"


def peak_flops(study: Study) -> tuple[float, str]:
    """FLOP/s of one device, and whose number that is."""
    args, device = study.args, study.cluster.device
    if args.peak_theoretical_tflops is not None:
        return args.peak_theoretical_tflops * 1e12, "peak_theoretical_tflops of the config"
    if args.precision == "fp32":
        return device.peak_flops / HALF_PER_SINGLE, f"a {HALF_PER_SINGLE}th of {device.name}'s half-precision peak"
    return device.peak_flops, f"{device.name}, data sheet"


def run_length(args: NeoXArgs, seconds: float, *, devices: int) -> str:
    """Steps, tokens and days of the whole run, as far as the config says how long it is."""
    if args.train_iters is None:
        length = f"train_epochs: {args.train_epochs}" if args.train_epochs else "no train_iters"
        return f"of unknown length ({length}); 1,000 steps take {text.time(1000 * seconds)}"
    full = args.train_batch_size * args.seq_length
    tokens = tokens_before(args, args.train_iters)
    total = tokens / full * seconds
    return (
        f"{args.train_iters:,} steps, {text.count(tokens)} tokens: {text.time(total)}, "
        f"{total / 3600 * devices:,.0f} GPU-hours"
    )


def remarks(study: Study) -> list[str]:
    """What the reader of the numbers should know."""
    args, device = study.args, study.cluster.device
    found = list(flops_remarks(args))
    if args.precision == "bfloat16" and not device.has_bfloat16:
        found.append(f"{device.name} has no bfloat16 matrix units: use fp16 there")
    if args.precision == "fp32":
        found.append("the config says fp32, the default; precision=bfloat16 or fp16 is what such devices are made for")
    return found


def schedule_lines(args: NeoXArgs) -> list[str]:
    """The curve, with its corners in words."""
    if args.train_iters is None:
        return text.wrap("not drawn: the config gives no train_iters", indent=2)
    corners = f"{args.lr:g} at its peak, {args.lr_decay_style}"
    if args.warmup_steps:
        corners += f", after {args.warmup_steps:,.0f} iterations of warm-up (W)"
    if args.lr_decay_style != "constant":
        corners += f", decayed at {args.lr_decay_steps:,} (D), never below {args.min_lr:g} afterwards"
    return [*text.wrap(corners, indent=2), *text.indent(lr_plot(args), 2)]
