"""What tools/benchmark/train.py asks of the numbers of a case: the targets of this project, in the worst round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.benchmark.train_report import Report, ratios, with_other_losses
from tools.benchmark.train_ways import OURS, WAYS


@dataclass(frozen=True)
class Targets:
    """faster: how many times as fast ours must be as the fastest way of those that the key names, or of all tuned ones; memory: of `transformers, tuned`, at most."""

    faster: dict[str, float]
    memory: float | None = None
    of_ceiling: float | None = None
    fp8: float | None = None


TUNED = "the best tuned peer"

CPU = Targets({TUNED: 1.25, "transformers": 4.0, "litgpt": 2.0}, memory=0.7)
CUDA = Targets({"torchtitan, compiled": 1.1, "transformers, compiled": 1.3})
OF_CUDA_CASES = {
    "Pythia 1.4B": Targets(CUDA.faster, of_ceiling=0.65),
    "Llama 8B-shaped": Targets(CUDA.faster, fp8=1.25),
}


ONLY_LOSSES = Targets({})
"""Of models too small for their speed to say anything."""


def targets_of(case: str, device: str) -> Targets:
    """What is asked of a case."""
    return CPU if device == "cpu" else OF_CUDA_CASES.get(case, CUDA)


def problems_of(report: Report, targets: Targets) -> list[str]:
    """What misses its target; what is not there misses none, but ours must be."""
    ways = report["ways"]
    if OURS not in ways:
        return [f"ours cannot be measured: {report['left_out'].get(OURS)}"]
    problems = [f"{name} has other losses: {report['differences'][name]}" for name in with_other_losses(report)]
    problems += _slower(ways, targets)
    tuned = ways.get("transformers, tuned")
    if targets.memory and tuned and ways[OURS]["peak_bytes"] > targets.memory * tuned["peak_bytes"]:
        share = ways[OURS]["peak_bytes"] / tuned["peak_bytes"]
        problems.append(f"ours takes {share:.2f} of the memory of transformers, not {targets.memory}")
    if targets.of_ceiling and ways[OURS]["of_ceiling"] < targets.of_ceiling:
        problems.append(f"ours reaches {ways[OURS]['of_ceiling']:.2f} of the ceiling, not {targets.of_ceiling}")
    fp8 = ratios(report["rounds"], OURS, "seconds", against="ours, fp8")
    if targets.fp8 and fp8 and fp8["worst"] < targets.fp8:
        problems.append(f"fp8 is {fp8['worst']:.2f} times as fast, not {targets.fp8}")
    return problems


def _slower(ways: dict[str, Any], targets: Targets) -> Iterator[str]:
    for name, factor in targets.faster.items():
        among: Callable[[str], bool] = is_tuned_peer if name == TUNED else name.__eq__
        found = {way: each["ratio"]["worst"] for way, each in ways.items() if way != OURS and among(way)}
        if found and min(found.values()) < factor:
            slowest = min(found, key=lambda way: found[way])
            yield f"ours is {found[slowest]:.2f} times as fast as {slowest}, not {factor}"


def is_tuned_peer(name: str) -> bool:
    """Whether a way is another program's at its best."""
    return name in WAYS and WAYS[name].program != "ours" and WAYS[name].tuned
