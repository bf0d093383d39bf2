"""The configuration in words, for `--dry-run` and the head of a run: what was chosen and where, what follows, how processes are laid out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.explaining.provenance import PROPERTIES
from megatron.neox_arguments.explaining.schedules import configured_evaluation, growth
from megatron.neox_arguments.keys.types import read_numbers_within
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues, quote
from megatron.neox_arguments.resolving.draft import Draft
from megatron.neox_arguments.resolving.resolve import resolve
from megatron.text import table


def summary(args: NeoXArgs, values: ConfigValues, *, planning: bool = False) -> list[str]:
    """Lines about `args`, which were made from `values`: non-default values with origins, overrides, derived values with their rules,
    remarks, and the layout. Sections without content are left out."""
    resolution = resolve(NeoXArgs, values, world_size=args.global_num_gpus, planning=planning)
    lines = [
        *chosen_lines(values),
        *_section("Overridden", override_lines(values)),
        *_section("Derived", _rows(_derived(args, resolution.rules))),
        *_section("Remarks", resolution.notes),
        *_section("Layout", layout_lines(args)),
    ]
    return lines[:-1]


def chosen_lines(values: ConfigValues) -> list[str]:
    """The values that differ from the defaults, with their places."""
    return _section("Values that differ from the defaults", _rows(_chosen(modernise(values)[0])))


def override_lines(values: ConfigValues) -> list[str]:
    """One line for each value that a later file or the command line changed: old value and place -> new value and place."""
    return [str(override) for override in modernise(values)[0].overrides if override.old != override.new]


def layout_lines(args: NeoXArgs) -> list[str]:
    """How processes divide the model and the batch."""
    stages, copies, ranks = args.pipeline_stages, args.data_parallel_size, args.model_parallel_size
    parts = args.context_parallel_size
    context = f" x {_count(parts, 'context rank')}" if parts > 1 else ""
    samples = f"{args.train_micro_batch_size_per_gpu} a micro-batch x {args.gradient_accumulation_steps} accumulated x {_count(copies, 'data-parallel copy')}"
    tokens = args.train_batch_size * args.seq_length
    return [
        f"{_count(args.global_num_gpus, 'process')} = {_count(stages, 'pipeline stage')}"
        f" x {_count(copies, 'data-parallel copy')}{context} x {_count(ranks, 'tensor rank')}",
        f"{_count(args.train_batch_size, 'sample')} a step = {samples}; {tokens:,} tokens",
        *(f"{title}: {words}" for title, words in growth(args).items()),
        *([f"evaluation: {configured_evaluation(args)}"] if args.data_path or args.train_data_paths else []),
        f"{args.precision}, ZeRO stage {args.zero_stage}, launcher {args.launcher}",
    ]


def describe_conflict(args: NeoXArgs, values: ConfigValues, conflict: Conflict) -> str:
    """A problem that shows only once arguments are finished, such as hosts that do not suit the launcher."""
    draft = Draft(NeoXArgs, args.to_dict(), given=frozenset(values.values), broken=set(), source=values)
    return draft.describe(conflict.keys, conflict.reason)


def _chosen(values: ConfigValues) -> list[tuple[str, Any, str]]:
    fields = NeoXArgs.model_fields
    return [
        (key, read_numbers_within(value), str(values.origin(key) or ""))
        for key, value in values.values.items()
        if key in fields and value is not None and value != fields[key].default
    ]


def _derived(args: NeoXArgs, rules: dict[str, str]) -> list[tuple[str, Any, str]]:
    """Derived keys, then properties that are computed from several keys."""
    keys = [(key, shorten(getattr(args, key)), rule) for key, rule in rules.items()]
    width = "half of two thirds of the intermediate size" if args.gated_activation else "the intermediate size"
    names = ["data_parallel_size", *(["lr_decay_steps", "warmup_steps"] if args.train_iters is not None else [])]
    return [
        *keys,
        ("mlp_width", args.mlp_width, f"{width}, rounded up to a multiple of {args.mlp_multiple_of}"),
        *((name, getattr(args, name), PROPERTIES[name][0]) for name in names),
    ]


def shorten(value: Any) -> Any:
    """A list without its repetitions: `global x 24`."""
    if isinstance(value, tuple) and len(value) > 2 and len(set(map(str, value))) == 1:
        return f"{value[0]} x {len(value)}"
    return value


def _rows(rows: Iterable[tuple[str, Any, str]]) -> list[str]:
    return table([(key, quote(value, limit=60), note) for key, value, note in rows])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines), ""] if lines else []


def _count(number: int, noun: str) -> str:
    plural = {"process": "processes", "data-parallel copy": "data-parallel copies"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
