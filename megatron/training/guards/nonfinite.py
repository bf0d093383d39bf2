"""Where a NaN or an infinity of a step comes from: the step is run again, without an update, with every module watched (`diagnose_nan`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megatron import text
from megatron.engine.protocol import Engine, StepResult
from megatron.errors import NeoXError
from megatron.mpu.collectives import all_gather_objects
from megatron.training.guards.documents import DocumentsOf
from megatron.training.guards.module_watch import ModuleWatch, Origin


@dataclass(frozen=True)
class Finding:
    """What one rank found. weight: a parameter with weights that are not finite; documents: of the micro-batch of `origin`."""

    rank: int
    stage: int
    weight: str | None = None
    origin: Origin | None = None
    documents: str = ""

    @property
    def place(self) -> tuple[bool, int, int, int]:
        """Where in the step the origin lies; numbers spread from the smaller to the larger."""
        assert self.origin is not None
        depth = -self.stage if self.origin.backward else self.stage
        return self.origin.backward, self.origin.micro_batch, depth, self.origin.order


def is_suspicious(result: StepResult, *, fp16: bool) -> bool:
    """Whether a step has numbers that should not be; gradients that overflow in fp16 are the loss scale's business."""
    return not math.isfinite(result.loss) or (result.skipped and not fp16)


def diagnose(engine: Engine, *, iteration: int, documents: DocumentsOf | None) -> str:
    """Run the last step of the engine again and say where the first number comes from that is not finite (collective).

    iteration: of that step, counted from 1. Raises NeoXError when weights are not finite, which no further step can mend.
    """
    groups = engine.groups
    here = Finding(groups.rank, groups.pipe.rank, weight=engine.first_non_finite_weight())
    spoiled = [finding for finding in all_gather_objects(here, groups.world) if finding.weight is not None]
    if spoiled:
        first = min(spoiled, key=lambda finding: (finding.stage, finding.rank))
        raise NeoXError(
            f'the weights of "{first.weight}" are not all finite on {_ranks([each for each in spoiled if each.weight == first.weight])} in '
            f"iteration {iteration}: the run stops without saving; start again from a checkpoint of before"
        )
    watch = ModuleWatch(engine.model)
    with watch.watching():
        engine.rehearse()
    if watch.origin is not None:
        where = documents(iteration - 1, watch.origin.micro_batch) if documents is not None else ""
        here = Finding(groups.rank, groups.pipe.rank, origin=watch.origin, documents=where)
    found = [finding for finding in all_gather_objects(here, groups.world) if finding.origin is not None]
    return describe(found)


def describe(found: list[Finding]) -> str:
    """In words what the ranks found that found something."""
    if not found:
        return "run again with the same weights and batch, all numbers were finite: look at the devices, or at what is not deterministic"
    place = min(finding.place for finding in found)
    first = [finding for finding in found if finding.place == place]
    origin = first[0].origin
    assert origin is not None
    documents = f", made of {first[0].documents}" if first[0].documents else ""
    return (
        f"run again, the first number that is not finite {origin.where} on {_ranks(first)}, in micro-batch {origin.micro_batch + 1} of the "
        f"step{documents}"
    )


def _ranks(findings: list[Finding]) -> str:
    return text.ranks([finding.rank for finding in findings])
