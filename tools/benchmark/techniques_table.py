"""The techniques that tools/benchmark/techniques.py measures: for each the settings without it and with it, on top of ours at its best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.benchmark.train_report import ratios
from tools.benchmark.train_rounds import Measured
from tools.benchmark.train_ways import AT_ITS_BEST, ON_GPUS, OURS, Way


@dataclass(frozen=True)
class Technique:
    """without, with_: settings, on top of `AT_ITS_BEST`; has_environment: whether our variables are set without it as well.

    gpu: it needs one; only: the kind of model that it is for, `neox` or `llama`.
    """

    without: Mapping[str, Any] = field(default_factory=dict)
    with_: Mapping[str, Any] = field(default_factory=dict)
    has_environment: bool = True
    gpu: bool = False
    only: str | None = None


def kernel(key: str, only: str | None = None) -> Technique:
    """A kernel that a key selects."""
    return Technique({key: False}, {key: True}, gpu=True, only=only)


TECHNIQUES: dict[str, Technique] = {
    "own engine (`deepspeed: false`)": Technique({"deepspeed": True}, {"deepspeed": False}),
    "`fused_linear_cross_entropy`": Technique(
        {"fused_linear_cross_entropy": False}, {"fused_linear_cross_entropy": True}
    ),
    "`compile`": Technique({"compile": False}, {"compile": True}),
    "`flash` attention": Technique(
        {"attention_config": [[["global"], "all"]]}, {"attention_config": [[["flash"], "all"]]}
    ),
    "`sdpa_backend: auto` in place of `flash`": Technique({"sdpa_backend": "flash"}, {"sdpa_backend": "auto"}),
    "`sdpa_backend: cudnn` in place of `flash`": Technique(
        {"sdpa_backend": "flash"}, {"sdpa_backend": "cudnn"}, gpu=True
    ),
    "variables of the launcher": Technique(has_environment=False),
    "`layernorm_fusion`": kernel("layernorm_fusion", "neox"),
    "`rmsnorm_fusion`": kernel("rmsnorm_fusion", "llama"),
    "`rope_fusion`": kernel("rope_fusion"),
    "`use_flashattn_swiglu`": kernel("use_flashattn_swiglu", "llama"),
    "`bias_dropout_fusion`": kernel("bias_dropout_fusion", "neox"),
    "`fp8: tensorwise`": Technique({}, {"fp8": "tensorwise"}, gpu=True),
    "`checkpoint_activations`": Technique({}, {"checkpoint_activations": True}),
}


def sides(name: str, technique: Technique, *, device: str) -> tuple[str, str]:
    """The names of the ways without it and with it: that of ours where they are what ours is at its best."""
    best = {**AT_ITS_BEST, **(ON_GPUS if device == "cuda" else {})}
    without = technique.has_environment and {**best, **technique.without} == best
    with_ = {**best, **technique.with_} == best
    return OURS if without else f"{name}, without", OURS if with_ else f"{name}, with"


def ways_of(techniques: Mapping[str, Technique], *, device: str, gated: bool) -> tuple[dict[str, Way], dict[str, str]]:
    """What has to be measured, and the techniques that cannot be measured here, with the reason."""
    ways, skipped = {OURS: Way("ours", AT_ITS_BEST, on_gpus=ON_GPUS)}, {}
    for name, technique in techniques.items():
        if technique.gpu and device != "cuda":
            skipped[name] = "needs a GPU"
            continue
        if technique.only and (technique.only == "llama") != gated:
            skipped[name] = "this model has none"
            continue
        without, with_ = sides(name, technique, device=device)
        for way, settings, tuned in (
            (without, technique.without, technique.has_environment),
            (with_, technique.with_, True),
        ):
            if way != OURS:
                ways[way] = Way("ours", {**AT_ITS_BEST, **settings}, tuned=tuned, on_gpus={**ON_GPUS, **settings})
    return ways, skipped


def effects(techniques: Mapping[str, Technique], measured: Measured, *, device: str) -> dict[str, dict[str, Any]]:
    """Of each technique that was measured: how many times as fast a step is with it, and the share of the memory that it takes.

    None of those whose keys this version refuses.
    """
    found = {}
    for name, technique in techniques.items():
        without, with_ = sides(name, technique, device=device)
        faster = ratios(measured.rounds, without, "seconds", against=with_)
        notes = {note for side in (without, with_) for note in measured.notes.get(side, [])}
        if not faster or notes & {f"without {key}" for key in (*technique.without, *technique.with_)}:
            continue
        found[name] = {
            "faster": faster,
            "faster_by_cpu": ratios(measured.rounds, without, "cpu_seconds", against=with_),
            "memory": _peak(measured, with_) / _peak(measured, without),
            "notes": sorted(notes),
        }
    return found


def _peak(measured: Measured, name: str) -> int:
    return max(int(each[name]["peak_bytes"]) for each in measured.rounds if name in each)


def markdown_of(cases: Mapping[str, Any]) -> list[str]:
    """The table, a row for each technique: of each model the step's speed with it, in the median and in the worst round, and its memory."""
    names = list(dict.fromkeys(name for case in cases.values() for name in case["effects"]))
    lines = [
        "| technique | " + " | ".join(f"{case}: times as fast (worst) | memory" for case in cases) + " |",
        "| --- |" + " --- | --- |" * len(cases),
    ]
    for name in names:
        cells = []
        for case in cases.values():
            effect = case["effects"].get(name)
            faster = f"{effect['faster']['median']:.2f} ({effect['faster']['worst']:.2f})" if effect else ""
            cells.append(f"{faster} | {effect['memory']:.2f}" if effect else " | ")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
