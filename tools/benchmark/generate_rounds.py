"""Rounds of tools/benchmark/generate.py, and what they say."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.shapes import parameter_shapes
from tools.benchmark.generate_ways import Generate, Tokens

TARGET = 1.15  # times the others' speed
READ_BYTES = 1 << 29


@dataclass(frozen=True)
class Sizes:
    """Of one case: rows, tokens of each prompt, tokens to generate after the first new one."""

    rows: int
    prompt: int
    steps: int


def random_prompts(sizes: Sizes, *, vocab_size: int) -> Tokens:
    """Ids that are the same at every call."""
    generator = torch.Generator().manual_seed(sizes.rows)
    prompts: Tokens = torch.randint(vocab_size, (sizes.rows, sizes.prompt), generator=generator).tolist()
    return prompts


def measure_case(
    ways: Mapping[str, Generate], sizes: Sizes, *, vocab_size: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """All ways in turn, round after round; before, each once, to see which tokens it gives.

    step_seconds: the median of the steps of a call, so that what else the machine does for a moment does not count.
    """
    prompts = random_prompts(sizes, vocab_size=vocab_size)
    tokens = {name: generate(prompts, sizes.steps + 1, lambda: None) for name, generate in ways.items()}
    case: dict[str, Any] = {
        "rows": sizes.rows,
        "prompt": sizes.prompt,
        "steps": sizes.steps,
        "tokens_as_ours": {name: equal_part(tokens["ours"], theirs) for name, theirs in tokens.items()},
        "rounds": [],
    }
    names = list(ways)
    for turn in range(rounds):
        taken: dict[str, Any] = {"read_bytes_a_second": read_speed(device)}
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            taken[name] = times_of(ways[name], prompts, sizes.steps)
        case["rounds"].append(taken)
    case["ratios"] = {name: ratios(case["rounds"], name) for name in names[1:]}
    return case


def equal_part(ours: Tokens, theirs: Tokens) -> float:
    """Which part of the tokens is the same, up to the first other one of each row."""
    same = 0
    for own, other in zip(ours, theirs, strict=True):
        pairs = list(zip(own, other, strict=True))
        same += next((place for place, (first, second) in enumerate(pairs) if first != second), len(pairs))
    return same / sum(map(len, ours))


def times_of(generate: Generate, prompts: Tokens, steps: int) -> dict[str, float]:
    """Seconds of one call: the whole, up to the first tokens, and the median of the `steps` steps after them."""
    times = [time.perf_counter()]
    generate(prompts, steps + 1, lambda: times.append(time.perf_counter()))
    lengths = [after - before for before, after in pairwise(times)]
    assert len(lengths) == steps + 1, "a way does not tell of every step"
    return {
        "whole_seconds": times[-1] - times[0],
        "first_seconds": lengths[0],
        "step_seconds": statistics.median(lengths[1:]),
    }


def read_speed(device: torch.device) -> float:
    """Bytes a second that all threads read of memory, the best of a few times."""
    memory = torch.ones(READ_BYTES // 4, device=device)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        memory.sum().item()
        best = max(best, READ_BYTES / (time.perf_counter() - began))
    return best


def weight_bytes(architecture: Architecture, dtype: torch.dtype) -> int:
    """What a step reads at least: every weight but those of the embedding, of which it looks up a few rows."""
    read = [each.shape for each in parameter_shapes(architecture) if each.kind != "embedding"]
    return sum(map(math.prod, read)) * dtype.itemsize


def ratios(rounds: list[dict[str, Any]], name: str) -> dict[str, float]:
    """How many times as fast ours is as another way, in the median of the rounds and in the worst one; of steps and of whole calls."""
    of_steps = [each[name]["step_seconds"] / each["ours"]["step_seconds"] for each in rounds]
    of_calls = [each[name]["whole_seconds"] / each["ours"]["whole_seconds"] for each in rounds]
    return {
        "step": statistics.median(of_steps),
        "step_worst": min(of_steps),
        "whole": statistics.median(of_calls),
        "whole_worst": min(of_calls),
    }


def problems_of(case: Mapping[str, Any], *, exact: bool) -> list[str]:
    """What misses its target. exact: every way must give our tokens, as in fp32."""
    found = [
        f"{name} is only {ratio['step']:.2f} times slower, not {TARGET}"
        for name, ratio in case["ratios"].items()
        if ratio["step"] < TARGET
    ]
    different = [f"{name} gives other tokens" for name, part in case["tokens_as_ours"].items() if exact and part < 1]
    return found + different


def table_of(case: Mapping[str, Any], *, bytes_a_step: int) -> list[str]:
    """Lines: tokens a second of every way, and how many times as fast ours is."""
    rows, steps, rounds = case["rows"], case["steps"], case["rounds"]
    reading = max(each["read_bytes_a_second"] for each in rounds)
    ceiling = rows * reading / bytes_a_step
    lines = [
        f"batch {rows}, prompts of {case['prompt']} tokens, {steps} steps, {len(rounds)} rounds; a step reads {bytes_a_step / 1e6:.0f} MB "
        f"at {reading / 1e9:.1f} GB/s: at most {ceiling:.1f} tokens/s",
        f"{'':28}{'tokens/s':>10}{'of ceiling':>12}{'ours is faster by':>20}{'(worst)':>9}{'whole call':>12}{'(worst)':>9}  same tokens",
    ]
    for name, part in case["tokens_as_ours"].items():
        speed = rows / statistics.median(each[name]["step_seconds"] for each in rounds)
        line = f"{name:28}{speed:10.1f}{speed / ceiling:12.2f}"
        if name in case["ratios"]:
            ratio = case["ratios"][name]
            line += f"{ratio['step']:20.2f}{ratio['step_worst']:9.2f}{ratio['whole']:12.2f}{ratio['whole_worst']:9.2f}{part:12.0%}"
        lines.append(line)
    return lines
