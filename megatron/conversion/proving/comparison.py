"""What two programs made of one prompt, side by side: how far apart the outputs are, and which layer parts them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from megatron.conversion.proving.prompts import Prompt, compared_positions

RELATIVE_TOLERANCE = 1e-5
"""Of the largest usual output, or of 1 where that is larger: fp32 sums taken in another order."""
USUAL = 0.99
"""This part of the outputs of a position is usual, and so is what is not twice as large: a few rows of the vocabulary may be far out, and what is
allowed for them must not hide a difference of the others."""


@dataclass(frozen=True, eq=False)
class Sides:
    """sequence: int64 [1, s], the prompt and what theirs appended; ours, theirs: logits [compared positions, v], or scores [1]."""

    prompt: Prompt
    sequence: Tensor
    ours: Tensor
    theirs: Tensor


@dataclass(frozen=True)
class PromptComparison:
    """One prompt. tokens: with what was appended; difference: the largest of an output, in proportion where one is unusually large; log_likelihoods: ours and theirs of the compared tokens;
    continued: tokens appended greedily by theirs; parted: the first of these that ours would not choose, None when there is none."""

    name: str
    tokens: int
    difference: float
    tolerance: float
    largest: float
    log_likelihoods: tuple[float, float]
    continued: int
    parted: int | None

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than the tolerance; likelihoods cannot then: each moves by two tolerances a token at most."""
        return self.difference <= self.tolerance and self.parted is None


def compare(sides: Sides, *, allowed: float = 0.0) -> PromptComparison:
    """allowed: a difference that is none, where it is more than the usual tolerance."""
    largest = float(sides.theirs.abs().max())
    usual = max(1.0, _usual(sides.theirs))
    tolerance = max(RELATIVE_TOLERANCE * usual, allowed)
    same_shape = sides.ours.shape == sides.theirs.shape
    return PromptComparison(
        name=sides.prompt.name,
        tokens=sides.sequence.shape[1],
        difference=_difference(sides, usual) if same_shape else math.inf,
        tolerance=tolerance,
        largest=largest,
        log_likelihoods=(_log_likelihood(sides.ours, sides.sequence), _log_likelihood(sides.theirs, sides.sequence)),
        continued=sides.prompt.continued,
        parted=_parted(sides, 2 * max(tolerance, RELATIVE_TOLERANCE * largest)),
    )


def largest_difference(first: Tensor, second: Tensor) -> float:
    """NaN where one of them is."""
    return float((first - second).abs().max())


def first_difference(ours: Iterable[Tensor], theirs: Sequence[Tensor], *, num_layers: int) -> str:
    """The layer behind which hidden states differ first, as `our_hidden_states` gives them."""
    names = [
        "the embedding",
        *(f"block {number}" for number in range(num_layers - 1)),
        f"block {num_layers - 1}, or the final norm",
    ]
    for name, mine, other in zip(names, ours, theirs, strict=True):
        tolerance = RELATIVE_TOLERANCE * max(1.0, float(other.abs().max()))
        if mine.shape != other.shape or not float((mine - other).abs().max()) <= tolerance:
            return name
    return "the output layer"


def _usual(outputs: Tensor) -> float:
    """The largest output that is not far out."""
    sizes = outputs.abs()
    most = sizes.kthvalue(max(1, int(USUAL * sizes.shape[-1])), dim=-1).values
    return min(float(sizes.max()), 2 * float(most.max()))


def _difference(sides: Sides, usual: float) -> float:
    unusual = (sides.theirs.abs() / usual).clamp(min=1.0)
    return float(((sides.ours - sides.theirs).abs() / unusual).max())


def _log_likelihood(outputs: Tensor, sequence: Tensor) -> float:
    """Of the tokens behind the compared positions; 0 for scores, which say nothing of tokens."""
    positions = compared_positions(sequence.shape[1])[:-1]
    if outputs.dim() == 1 or not len(positions):
        return 0.0
    following = sequence[0, positions + 1, None]
    return float(outputs[:-1].double().log_softmax(-1).gather(1, following).sum())


def _parted(sides: Sides, tie: float) -> int | None:
    """The first appended token whose logit is further below ours' largest than two that are as good as equal."""
    begin = len(sides.prompt.tokens)
    row_of = {position: row for row, position in enumerate(compared_positions(sides.sequence.shape[1]).tolist())}
    for number in range(sides.prompt.continued):
        logits = sides.ours[row_of[begin + number - 1]]
        if not float(logits.max() - logits[sides.sequence[0, begin + number]]) <= tie:
            return number
    return None
