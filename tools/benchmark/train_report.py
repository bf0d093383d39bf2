"""What the rounds of tools/benchmark/train.py say: numbers of a case, its table, and which targets it misses."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tools.benchmark.train_cases import Case
from tools.benchmark.train_job import BATCHES, PRODUCTS
from tools.benchmark.train_rounds import Measured
from tools.benchmark.train_ways import OURS

Report = dict[str, Any]

LARGEST_DIFFERENCE = 2e-2
"""Of losses, in nats, between ways on the same weights and batches: bf16 keeps 8 bits, and every program rounds elsewhere, so that the mean of thousands
of tokens is apart by some 1e-4 at first, and by more once updates were made from such gradients. On average half of it."""

OF_THE_FALL = 0.5
"""Where the loss of a batch falls by less than twice that, this part of the fall counts, so that updates that are left out are always seen."""

EXACT = "transformers"
"""Computes in fp32 out of the box: the losses that all others are held to, where it is there."""


def report_of(case: Case, measured: Measured) -> Report:
    """All numbers of a case, as they are written."""
    flops = case.flops
    products = [each[PRODUCTS] for each in measured.rounds if PRODUCTS in each]
    ceiling = max((each["ceiling"] for each in products), default=None)
    floor = min((each["floor_seconds"] for each in products), default=None)
    taken = {name for each in measured.rounds for name in each if name != PRODUCTS}
    names = [name for name in measured.losses if name in taken]
    return {
        "rows": case.rows,
        "length": case.length,
        "parameters": case.parameters,
        "flops": flops,
        "ceiling": ceiling,
        "floor_seconds": floor,
        "ways": {name: _numbers(name, case, measured, flops, ceiling, floor) for name in names},
        "losses_as": EXACT if EXACT in names else OURS,
        "largest_difference": allowed(measured.losses.get(EXACT if EXACT in names else OURS, [])),
        "differences": differences(measured.losses, names),
        "left_out": measured.left_out,
        "rounds": measured.rounds,
    }


def _numbers(
    name: str, case: Case, measured: Measured, flops: int, ceiling: float | None, floor: float | None
) -> dict[str, Any]:
    taken = [each[name] for each in measured.rounds if name in each]
    seconds = statistics.median(each["seconds"] for each in taken)
    return {
        "tokens_per_second": case.tokens / seconds,
        "model_flops_per_second": flops / seconds,
        "of_ceiling": flops / seconds / ceiling if ceiling else None,
        "of_floor": floor / seconds if floor else None,
        "peak_bytes": max(each["peak_bytes"] for each in taken),
        "ratio": ratios(measured.rounds, name, "seconds"),
        "cpu_ratio": ratios(measured.rounds, name, "cpu_seconds"),
        "losses": measured.losses[name],
        "notes": measured.notes.get(name, []),
        "build_seconds": measured.build_seconds.get(name),
    }


def ratios(rounds: list[dict[str, Any]], name: str, what: str, *, against: str = OURS) -> dict[str, float] | None:
    """How many times as much `name` takes as `against`, in the median of the rounds that have both, and in the worst of them; None: there are none."""
    found = [each[name][what] / each[against][what] for each in rounds if name in each and against in each]
    return {"median": statistics.median(found), "worst": min(found)} if found and name != against else None


def differences(losses: Mapping[str, list[float]], names: list[str]) -> dict[str, dict[str, float]]:
    """How far the losses of each are from those of `EXACT` (else ours), at the same steps: at most, and on average."""
    reference = losses.get(EXACT if EXACT in names else OURS, [])
    found = {}
    for name in names:
        apart = [abs(one - other) for one, other in zip(losses[name], reference, strict=False)]
        if apart:
            found[name] = {"largest": max(apart), "mean": statistics.fmean(apart)}
    return found


def allowed(losses: list[float]) -> float:
    """How far others may be from these, given how they fall from the first step to the last one of the same batch."""
    fall = losses[0] - losses[(len(losses) - 1) // BATCHES * BATCHES] if losses else 0.0
    return min(LARGEST_DIFFERENCE, OF_THE_FALL * fall) if fall > 0 else LARGEST_DIFFERENCE


def with_other_losses(report: Report) -> list[str]:
    """The ways whose losses are too far away."""
    limit = report["largest_difference"]
    return [
        name
        for name, apart in report["differences"].items()
        # The other way round, for NaN to be found.
        if not (apart["largest"] < limit and apart["mean"] < limit / 2)
    ]


def table_of(name: str, report: Report) -> list[str]:
    """Lines for a terminal."""
    ceiling, floor = report["ceiling"], report["floor_seconds"]
    lines = [
        f"\n{name}: {report['parameters'] / 1e6:.0f}M parameters, {report['rows']} x {report['length']} tokens a step"
    ]
    if ceiling:
        tokens = report["rows"] * report["length"]
        lines.append(
            f"products of matrices: at most {ceiling / 1e12:.3f} TFLOP/s; the model's own take {floor:.3f} s, {tokens / floor:.0f} tokens/s"
        )
    lines.append(
        f"{'':26}{'tokens/s':>10}{'TFLOP/s':>9}{'of ceiling':>12}{'of floor':>10}{'memory':>11}{'ours faster':>13}{'(worst)':>9}{'by CPU':>8}"
    )
    for way, each in report["ways"].items():
        share = [f"{each[key]:.2f}" if each[key] else "" for key in ("of_ceiling", "of_floor")]
        ratio, cpu = each["ratio"], each["cpu_ratio"]
        line = f"{way:26}{each['tokens_per_second']:10.0f}{each['model_flops_per_second'] / 1e12:9.3f}{share[0]:>12}{share[1]:>10}"
        line += f"{each['peak_bytes'] / 2**30:7.2f} GiB"
        line += f"{ratio['median']:13.2f}{ratio['worst']:9.2f}{cpu['median']:8.2f}" if ratio else " " * 30
        notes = [*each["notes"], *(["OTHER LOSSES"] if way in with_other_losses(report) else [])]
        lines.append((line + ("  " + ", ".join(notes) if notes else "")).rstrip())
    lines += [f"{way}: left out: {reason}" for way, reason in report["left_out"].items()]
    for way, apart in report["differences"].items():
        if way != report["losses_as"]:
            lines.append(
                f"{way}: losses as of {report['losses_as']} but for {apart['largest']:.1e} at most, {apart['mean']:.1e} on average"
            )
    return lines
