"""Proposals on the page of `deepy.py plan`: the smallest change that fits, the ranked layouts, and where anything would fit at all."""

from __future__ import annotations

from megatron import text
from megatron.planning.layout import Layout
from megatron.planning.search.candidates import changes
from megatron.planning.search.search import Proposal
from megatron.planning.search.throughput import StepTime
from megatron.planning.study import Study

CAUSES = {
    "recomputation": "computing activations again",
    "tensor": "communication of tensor ranks",
    "context": "communication of context ranks",
    "pipeline": "the pipeline's bubble and sends",
    "data": "communication of data-parallel ranks",
}
"""What a step loses time to, by field of StepTime."""

WORTH_NAMING = 0.005


def repair_lines(study: Study) -> list[str]:
    """The smallest change of the config's layout that fits."""
    assert study.given is not None
    if study.nearest is None:
        return text.wrap("no layout of these devices does, see below", indent=2)
    what = " and ".join(changes(study.given, study.nearest.layout))
    needs = f"change {what}: {text.memory(study.nearest.memory.total)}, {describe(study.nearest.layout)}"
    if study.nearest in study.proposals:
        return text.wrap(f"{needs}; number {study.proposals.index(study.nearest) + 1} below", indent=2)
    return [*text.wrap(needs, indent=2), *words_lines(study.nearest)]


def proposal_lines(study: Study) -> list[str]:
    """The ranked layouts as a table with a reason and the words for each; or why there are none."""
    if not study.proposals:
        return nothing_lines(study)
    best = study.proposals[0]
    header = ["", "pipeline", "data", "tensor", "ZeRO", "micro x accum.", "recompute", "seq. par.", "memory", "speed"]
    rows = [[f"{number}.", *_row(proposal, best)] for number, proposal in enumerate(study.proposals, start=1)]
    if study.given is not None and study.fits:
        rows.append(["*", *_cells(study.given, study.search.memory(study.given).total, _speed(study, best))])
    lines = text.indent(text.table([header, *rows], right=range(1, len(header))), 2)
    if study.given is not None and study.fits:
        lines.append("  * the config's own")
    cut = f" over {best.layout.context} context ranks" if best.layout.context > 1 else ""
    for number, proposal in enumerate(study.proposals, start=1):
        lines += ["", *text.wrap(f"{number}. {reason(proposal, best)}", indent=2, hanging=3), *words_lines(proposal)]
    return [
        *lines,
        "",
        *text.wrap(f"All keep the batch of {study.args.train_batch_size:,} samples{cut}. {METHOD}", indent=2),
    ]


METHOD = "Speeds are relative, estimated from data-sheet peaks and links (megatron/planning/search/throughput.py); measure the first two or three."


def reason(proposal: Proposal, best: Proposal) -> str:
    """Why this layout has its rank, in words."""
    shares = sorted(losses(proposal.time).items(), key=lambda item: -item[1])
    lost = ", ".join(f"{CAUSES[cause]} ({text.percent(share)})" for cause, share in shares if share >= WORTH_NAMING)
    work = f"{text.percent(proposal.time.compute / proposal.time.total)} of a step computes"
    if proposal is best:
        return f"Fastest: {work}" + (f", the rest goes to {lost}." if lost else ".")
    slower = proposal.time.total / best.time.total - 1
    lead = f"{text.percent(slower)} slower" if slower >= WORTH_NAMING else "As fast"
    spared = best.memory.total - proposal.memory.total
    memory = f"{text.memory(abs(spared))} {'less' if spared >= 0 else 'more'} memory"
    return f"{lead} with {memory}: {work}" + (f", the rest goes to {lost}." if lost else ".")


def losses(time: StepTime) -> dict[str, float]:
    """Cause -> share of the step that does not go into the model's own FLOPs."""
    return {cause: share for cause, share in time.shares().items() if cause != "compute"}


def nothing_lines(study: Study) -> list[str]:
    """What is closest to fitting, and clusters on which something fits."""
    least = study.search.least_memory()
    if least is None:
        sentence = (
            f"none: no grid of {study.cluster.world_size} devices divides the heads, the MLP, the layers and the batch of "
            f"{study.args.train_batch_size} samples; use a batch that is a multiple of {study.cluster.world_size}"
        )
        return text.wrap(sentence, indent=2)
    layout, memory = least
    lines = text.wrap(
        f"none: the one with least memory needs {text.memory(memory.total)} of {text.memory(study.search.usable)} usable "
        f"({describe(layout)})",
        indent=2,
    )
    places = " or on ".join(map(str, study.larger)) or "no cluster of known devices up to a thousand times as large"
    cut = f", or here with context_parallel_size={study.context}" if study.context else ""
    return [*lines, *text.wrap(f"it would fit on {places}{cut}", indent=2)]


def describe(layout: Layout) -> str:
    """A layout in one breath."""
    parts = [
        str(layout),
        f"ZeRO {max(layout.zero_stage, 1)}",
        f"micro-batch {layout.micro_batch} x {layout.accumulation}",
        *(["sequence parallel"] if layout.sequence_parallel else []),
        *(["recomputing"] if layout.recompute else []),
    ]
    return ", ".join(parts)


def words_lines(proposal: Proposal) -> list[str]:
    """The words to paste, on lines of their own."""
    return text.wrap(" ".join(proposal.words) or "(the config as it is)", indent=5)


def _row(proposal: Proposal, best: Proposal) -> list[str]:
    return _cells(proposal.layout, proposal.memory.total, best.time.total / proposal.time.total)


def _cells(layout: Layout, memory: int, speed: float) -> list[str]:
    return [
        str(layout.stages),
        str(layout.data),
        str(layout.tensor),
        str(max(layout.zero_stage, 1)),
        f"{layout.micro_batch} x {layout.accumulation}",
        "yes" if layout.recompute else "no",
        "yes" if layout.sequence_parallel else "no",
        text.memory(memory),
        f"{speed:.2f}",
    ]


def _speed(study: Study, best: Proposal) -> float:
    assert study.given is not None
    return best.time.total / study.search.time(study.given).total
