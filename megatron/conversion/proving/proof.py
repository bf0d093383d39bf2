"""Whether two programs compute the same with the weights of a model: ours, from where the weights come from, and Hugging Face transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from megatron.checkpointing.names import is_weight
from megatron.conversion.proving.comparison import (
    PromptComparison,
    Sides,
    compare,
    first_difference,
    largest_difference,
)
from megatron.conversion.proving.ours import our_hidden_states, our_outputs
from megatron.conversion.proving.prompts import build_prompts, continued
from megatron.conversion.proving.theirs import TheirModel
from megatron.errors import CheckpointError
from megatron.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from megatron.conversion.opening import OpenedModel

FAR = 100
"""Tolerances beyond which a difference is a mistake, whatever fp32 may have lost."""
POWER = 1000
"""How many tolerances the outputs must differ among themselves, for their agreement to mean something."""


@dataclass(frozen=True)
class Proof:
    """problem: why it is not proven, a sentence that names the first layer that differs; spread: of the outputs at a position; rounding:
    how much rounding the weights changed an output, None where nothing was rounded; remarks: what the proof does not show."""

    architecture: str
    transformers: str
    prompts: tuple[PromptComparison, ...]
    problem: str = ""
    spread: float = 0.0
    rounding: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both compute the same."""
        return not self.problem and bool(self.prompts) and all(prompt.equal for prompt in self.prompts)


def prove(
    ours: OpenedModel,
    hugging_face: Path,
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
) -> Proof:
    """Compare logits, greedy continuations and likelihoods; of reward models the scores.

    dtype: what the files hold, to which weights of ours are rounded before they compute in fp32; None: what ours stores. tokenizer: makes tokens
    of texts. seed: of random prompts. Raises MissingRequirement without transformers; whatever else goes wrong is the `problem`.
    """
    parameters = sum(math.prod(shape) for name, shape in ours.source.shapes.items() if is_weight(name))
    prompts, not_reached = build_prompts(ours.architecture, tokenizer, parameters=parameters, seed=seed)
    if ours.architecture.train_impl == "rm":
        prompts = [replace(prompt, continued=0) for prompt in prompts]
    try:
        theirs = TheirModel(hugging_face)
        sequences = [
            continued(prompt, theirs.continuation(continued(prompt, ()), prompt.continued)) for prompt in prompts
        ]
        their_outputs = [theirs.outputs(sequence) for sequence in sequences]
    except CheckpointError as error:
        return Proof("", "", (), problem=str(error))
    outputs = our_outputs(ours, sequences, dtype=dtype)
    both = [Sides(*sides) for sides in zip(prompts, sequences, outputs, their_outputs, strict=True)]
    lost = _error_of_fp32(ours, both, dtype)
    proof = Proof(
        theirs.architecture,
        theirs.version,
        tuple(compare(sides, allowed=2 * lost) for sides in both),
        spread=_spread(both),
        remarks=(*not_reached, *_magnified(lost)),
    )
    if not proof.equal:
        return replace(proof, problem=_problem(ours, theirs, both, proof.prompts, dtype))
    return replace(proof, rounding=_rounding(ours, both[0], dtype), remarks=(*proof.remarks, *_weakness(proof)))


def _error_of_fp32(ours: OpenedModel, both: Sequence[Sides], dtype: torch.dtype | None) -> float:
    """How far fp32 itself is off, where both differ by a little more than is usual, else 0: two programs that sum in another order cannot
    agree better than that, in models that magnify such errors."""
    unsure = [sides for sides in both if _is_unsure(compare(sides))]
    if not unsure:
        return 0.0
    sequences = [sides.sequence for sides in unsure]
    exact = our_outputs(ours, sequences, dtype=dtype, computing=torch.float64)
    return max(largest_difference(sides.ours, outputs) for sides, outputs in zip(unsure, exact, strict=True))


def _is_unsure(compared: PromptComparison) -> bool:
    return not compared.equal and compared.difference <= FAR * compared.tolerance


def _magnified(error: float) -> list[str]:
    return [f"fp64 instead of fp32 changes our own outputs by {error:.2g}, so twice that is allowed"] if error else []


def _spread(both: Sequence[Sides]) -> float:
    """How far the logits of one position lie apart at most, or the scores of all prompts."""
    outputs = [sides.ours for sides in both]
    each = outputs if outputs[0].dim() > 1 else [torch.cat(outputs)]
    return max(float((values.amax(-1) - values.amin(-1)).max()) for values in each)


def _weakness(proof: Proof) -> list[str]:
    if proof.spread > POWER * max(prompt.tolerance for prompt in proof.prompts):
        return []
    return [
        f"the outputs hardly vary (by {proof.spread:.2g} at most), so their agreement says little: was the model trained at all?"
    ]


def _rounding(ours: OpenedModel, sides: Sides, dtype: torch.dtype | None) -> float | None:
    """The largest change of an output by rounding the weights, on one prompt."""
    if dtype is None or dtype == torch.float32:
        return None
    (exact,) = our_outputs(ours, [sides.sequence], dtype=None)
    return largest_difference(exact, sides.ours)


def _problem(
    ours: OpenedModel,
    theirs: TheirModel,
    both: Sequence[Sides],
    compared: Sequence[PromptComparison],
    dtype: torch.dtype | None,
) -> str:
    if not all(bool(sides.ours.isfinite().all()) for sides in both):
        return "outputs of ours are infinite or no numbers, so that nothing can be compared: was this checkpoint saved by a run that diverged?"
    parted = next((prompt for prompt in compared if prompt.parted is not None), None)
    if parted is not None and all(prompt.difference <= prompt.tolerance for prompt in compared):
        return (
            f"{theirs.architecture} appends another token than ours ({parted.name}, token {(parted.parted or 0) + 1}), though outputs for "
            "the whole agree: with its cache it computes something else than without"
        )
    differing = [number for number, prompt in enumerate(compared) if not prompt.equal]
    sequence = both[min(differing, key=lambda number: compared[number].tokens)].sequence
    worst = max((compared[number] for number in differing), key=lambda prompt: _finite(prompt.difference))
    where = first_difference(
        our_hidden_states(ours, sequence, dtype=dtype),
        theirs.hidden_states(sequence),
        num_layers=ours.architecture.num_layers,
    )
    return (
        f"{theirs.architecture} computes something else than ours: outputs differ by up to {worst.difference:.3g} ({worst.name}), "
        f"where {worst.tolerance:.2g} is allowed; the first layer that differs is {where}"
    )


def _finite(value: float) -> float:
    return math.inf if math.isnan(value) else value
