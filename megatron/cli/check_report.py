"""What `deepy.py check` prints: a line a key, defaults that differ, whether the keys fit together, and totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from megatron.cli.styled import Line, plain
from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.describe import layout_lines, override_lines
from megatron.neox_arguments.explaining.differences import DIFFERENCES, OLDER_DEFAULTS
from megatron.neox_arguments.explaining.judge import Kind, Verdict
from megatron.neox_arguments.reading.aliases import spellings
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.reading.values import ConfigValues, Origin, quote
from megatron.neox_arguments.resolving.checks.tokenizer import FILES
from megatron.neox_arguments.resolving.resolve import REQUIRED, derive_all
from megatron.neox_arguments.resolving.smallest_world import smallest_world

STYLES: dict[Kind, str] = {
    "same": "dim",
    "without effect": "dim",
    "renamed": "cyan",
    "changed": "yellow",
    "not built yet": "red",
    "unsupported": "red",
    "unknown": "red",
    "wrong": "red",
}
KIND_WIDTH = max(map(len, STYLES))
WIDEST_VALUE = 60


def verdict_lines(verdicts: Sequence[Verdict], counting: Sequence[Verdict]) -> list[Line]:
    """A line a key: place, verdict, key and value, reason."""
    places = [str(verdict.origin or "") for verdict in verdicts]
    written = [f"{verdict.key}: {quote(verdict.value, limit=WIDEST_VALUE)}" for verdict in verdicts]
    place_width, value_width = max(map(len, places), default=0), min(max(map(len, written), default=0), WIDEST_VALUE)
    lines: list[Line] = []
    for verdict, place, text in zip(verdicts, places, written, strict=True):
        detail = (
            verdict.detail if verdict in counting else "; ".join(filter(None, [verdict.detail, "overridden later"]))
        )
        lines.append(
            [
                (f"{place:{place_width}}  ", "dim"),
                (f"{verdict.kind:{KIND_WIDTH}}  ", STYLES[verdict.kind]),
                (f"{text:{value_width}}", ""),
                (f"  {detail}" if detail else "", ""),
            ]
        )
    return lines


def default_lines(merged: ConfigValues, verdicts: Iterable[Verdict]) -> list[Line]:
    """Defaults that differ from GPT-NeoX's, for keys that a whole config does not give."""
    if _absent(merged):
        return []
    modern, _ = modernise(merged)
    draft, _, _ = derive_all(NeoXArgs, merged, world_size=smallest_world(merged), planning=True)
    absent = [
        key
        for key in (*DIFFERENCES, *OLDER_DEFAULTS)
        if not any(modern.value(name) is not None for name in spellings(key))
    ]
    rows = [
        (key, DIFFERENCES[key].absent)
        for key in absent
        if key in DIFFERENCES and DIFFERENCES[key].absent and DIFFERENCES[key].matters(draft.values)
    ]
    if any(verdict.key in RULES and not RULES[verdict.key].remains for verdict in verdicts):
        rows += [
            (
                key,
                f"{NeoXArgs.model_fields[key].default:g} here and in GPT-NeoX; it was {OLDER_DEFAULTS[key]:g} until 2023, when this file may be from",
            )
            for key in absent
            if key in OLDER_DEFAULTS
        ]
    width = max((len(key) for key, _ in rows), default=0)
    return _section("Defaults that differ", [f"{key:{width}}  {text}" for key, text in rows])


def judge_together(merged: ConfigValues, *, unusable: set[str], missing: set[str]) -> tuple[list[Line], bool]:
    """Whether the keys that can be used fit together, for the smallest number of processes they allow.

    missing: keys of features that are not built, which are told already.
    """
    overridden = _section("Overridden", override_lines(merged))
    absent = _absent(merged)
    if absent:
        text = f"not judged: these are parts of a config ({', '.join(absent)} not given)"
        problems = _section("Problems", [line for problem in merged.problems for line in problem.splitlines()])
        return [*overridden, *problems, *_section("Together", [text])], not merged.problems
    kept = replace(merged, values={key: value for key, value in merged.values.items() if key not in unusable})
    if _trains(kept):
        kept = kept.with_value(["user_script"], "train.py", Origin("deepy.py"))
    try:
        resolution = NeoXArgs.resolution(kept, world_size=smallest_world(kept), planning=True)
    except ConfigError as error:
        return [
            *overridden,
            *_section("Together", [line for text in error.problems for line in f"error: {text}".splitlines()]),
        ], False
    args = NeoXArgs.from_resolved(resolution.values)
    without = f" without {', '.join(sorted(unusable))}" if unusable else ""
    defaults = [item for item in resolution.not_built if not missing & {key.partition(".")[0] for key in item.keys}]
    lines = [f"the keys fit together{without}:", *layout_lines(args), *_for_a_run(kept)]
    lines += [f"not built yet: {', '.join(item.keys)} is not given, and {item.reason}" for item in defaults]
    return [*overridden, *_section("Together", lines)], not defaults


def _for_a_run(values: ConfigValues) -> list[str]:
    """What a run needs besides, in words."""
    modern, _ = modernise(values)
    needs = {
        "a batch size": ("train_batch_size", "train_micro_batch_size_per_gpu", "batch_size"),
        "train_iters or train_epochs": ("train_iters", "train_epochs"),
        "data": ("data_path", "train_data_paths", "pos_train_data_paths"),
    }
    tokenizer = modern.value("tokenizer_type") or NeoXArgs.model_fields["tokenizer_type"].default
    needs |= {key: (key,) for key in FILES.get(tokenizer, ())}
    missing = [what for what, keys in needs.items() if not any(modern.value(key) for key in keys)]
    return [f"to train, give also {', '.join(missing)}"] if missing else []


def totals(verdicts: Sequence[Verdict]) -> list[Line]:
    """How many keys there are of each kind."""
    counts = Counter(verdict.kind for verdict in verdicts)
    parts = [f"{counts[kind]} {kind}" for kind in STYLES if counts[kind]]
    return [plain(), plain(f"{len(verdicts)} keys: {', '.join(parts)}", "bold")]


def _trains(values: ConfigValues) -> bool:
    """Whether the config names data: then all that training needs is expected of it."""
    return bool(values.values.get("data_path") or values.values.get("train_data_paths"))


def _absent(values: ConfigValues) -> list[str]:
    return [key for key in REQUIRED if values.values.get(key) is None]


def _section(title: str, lines: Sequence[str]) -> list[Line]:
    return [plain(), plain(title, "bold"), *(plain(f"  {line}") for line in lines)] if lines else []
