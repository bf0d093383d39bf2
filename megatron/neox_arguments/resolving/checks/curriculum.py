"""Sequences that grow (`curriculum_learning`): a complete section, lengths that rise, and that divide over the ranks that share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from megatron.errors import ConfigError
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_divisors, nearest_multiples

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

SCHEDULE_KEYS = {
    "fixed_linear": ("total_curriculum_step", "difficulty_step"),
    "fixed_root": ("total_curriculum_step", "difficulty_step", "root_degree"),
    "fixed_discrete": ("difficulty", "max_step"),
}
SECTION = "curriculum_learning"
SCHEDULE = f"{SECTION}.schedule_config"


def check_curriculum(args: Draft) -> None:
    """A curriculum is complete, its lengths rise, and none is longer than a sample."""
    section = args.curriculum_learning
    if not (section and section.get("enabled")):
        return
    kind, settings = section.get("schedule_type") or "fixed_linear", section.get("schedule_config") or {}
    problems = [args.describe_key(f"{SCHEDULE}.{key}", f": {kind} has no such key; remove it") for key in settings if key not in SCHEDULE_KEYS[kind]]  # fmt: skip
    missing = [*_absent(section, ("min_difficulty", "max_difficulty", "schedule_config"))]
    if missing:
        problems.append(args.describe((f"{SECTION}.enabled",), f"a curriculum also needs {', '.join(missing)}; add what is missing"))  # fmt: skip
    elif lacking := [*_absent(settings, SCHEDULE_KEYS[kind])]:
        problems.append(args.describe((SCHEDULE,), f"{kind} also needs {', '.join(lacking)}; add what is missing"))
    if problems:
        raise ConfigError(problems)
    if section["max_difficulty"] > args.seq_length:
        raise Conflict(
            (f"{SECTION}.max_difficulty", "seq_length"), f"samples are not that long; set it to {args.seq_length}"
        )
    if section["min_difficulty"] > section["max_difficulty"]:
        raise Conflict(
            (f"{SECTION}.min_difficulty", f"{SECTION}.max_difficulty"),
            f"sequences grow; set it to {section['max_difficulty']} or less",
        )
    if kind == "fixed_discrete":
        _check_discrete(settings, section["max_difficulty"])
    elif section["max_difficulty"] % settings["difficulty_step"]:
        step = settings["difficulty_step"]
        raise Conflict(
            (f"{SECTION}.max_difficulty", f"{SCHEDULE}.difficulty_step"),
            f"every length is a multiple of {step}, so this one is never reached; "
            f"set difficulty_step to {nearest_divisors(step, section['max_difficulty'])}",
        )


def check_curriculum_divides(args: Draft) -> None:
    """Every length of a curriculum divides over the ranks that share a sequence."""
    section = args.curriculum_learning
    ranks = args.context_parallel_size * (args.model_parallel_size if args.sequence_parallel else 1)
    if ranks == 1 or not (section and section.get("enabled")):
        return
    settings = section.get("schedule_config") or {}
    sharing = {"context_parallel_size": args.context_parallel_size > 1, "sequence_parallel": args.sequence_parallel}
    causes = [key for key, shares in sharing.items() if shares]
    for key in ("difficulty_step", "difficulty"):
        value = settings.get(key, ranks)
        for place, length in enumerate(value) if isinstance(value, list) else [("", value)]:
            if length % ranks:
                raise Conflict(
                    (f"{SCHEDULE}.{key}.{place}".rstrip("."), *causes),
                    f"{ranks} ranks share each sequence, so all lengths are multiples of that; use {nearest_multiples(length, ranks)}",
                )


def slow_lengths(args: Draft) -> Iterator[str]:
    """A remark where a curriculum has lengths that matrix units of half precision do not like."""
    section = args.curriculum_learning
    if not (section and section.get("enabled")) or args.precision == "fp32":
        return
    settings = section["schedule_config"]
    for key, lengths in (
        ("difficulty_step", [settings.get("difficulty_step", 8)]),
        ("difficulty", settings.get("difficulty", [])),
    ):
        if any(length % 8 for length in lengths):
            yield f"{args.locate(f'{SCHEDULE}.{key}')}: half precision is slow at lengths that are no multiples of 8"


def check_curriculum_with_gmlp(args: Draft) -> None:
    """gMLP has weights for each position, and mixes all of them."""
    section = args.curriculum_learning
    if section and section.get("enabled") and {"gmlp", "amlp"} & set(args.attention_config):
        raise Conflict(
            (f"{SECTION}.enabled", "attention_config"), "gMLP and aMLP need whole samples; set enabled to false"
        )


def _absent(section: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    return (key for key in keys if section.get(key) is None)


def _check_discrete(settings: Mapping[str, Any], longest: int) -> None:
    lengths, last_steps = settings["difficulty"], settings["max_step"]
    if len(lengths) != len(last_steps) + 1:
        raise Conflict(
            (f"{SCHEDULE}.difficulty", f"{SCHEDULE}.max_step"),
            f"{len(lengths)} lengths need {max(len(lengths) - 1, 1)} numbers in max_step, as the final length has no last iteration; "
            "give as many",
        )
    for key, values in (("difficulty", lengths), ("max_step", last_steps)):
        if any(first >= second for first, second in pairwise(values)):
            raise Conflict((f"{SCHEDULE}.{key}",), f"expected rising numbers; write {sorted(set(values))}")
    if lengths[-1] > longest:
        raise Conflict(
            (f"{SCHEDULE}.difficulty", f"{SECTION}.max_difficulty"),
            f"the final length is beyond max_difficulty; set max_difficulty to {lengths[-1]}",
        )
