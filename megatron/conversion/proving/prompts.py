"""What two programs are compared on: texts of several scripts, the first and last ids, random ids, and lengths at which a model may begin to differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.conversion.mapping.architecture import Architecture
from megatron.tokenizer.base import Tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog; 3.14159 is close to pi.",
    "def f(x):\n    return [y ** 2 for y in x if y != 0]  # squares\n",
    "Съешь ещё этих мягких французских булок. Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία.",
    "天地玄黄,宇宙洪荒。いろはにほへと 나랏말싸미 नमस्ते שלום مرحبا 🙂\t\u00a0 end",
)
LENGTHS = (1, 2, 17, 64)
BEGUN, CONTINUED = 9, 32
"""Random tokens that are continued, and tokens that are appended."""
BEYOND = 9
"""Tokens behind a border, a window's or that of the original context."""
COMPARED = 512
"""Positions of a sequence whose logits are compared: of longer ones the first, the last and some between."""
ATTENTION_BYTES = 1 << 30
"""The scores of one layer's attention, which transformers has in memory at once, may take as much; or a quarter of the model's weights."""
OPERATIONS = 2e14
"""Multiplications and additions that the longest prompt may take: some minutes."""


@dataclass(frozen=True)
class Prompt:
    """name: for the report; tokens: at least one; continued: how many tokens are to be appended greedily."""

    name: str
    tokens: tuple[int, ...]
    continued: int = 0


def build_prompts(
    architecture: Architecture, tokenizer: Tokenizer | None, *, parameters: int, seed: int = 0
) -> tuple[list[Prompt], list[str]]:
    """The prompts, and a sentence for each length that would take too long to reach. parameters: numbers of the model."""
    prompts = _texts(architecture, tokenizer) if tokenizer is not None else []
    limit = architecture.max_position_embeddings
    rows = architecture.vocab_size
    edges = tuple(dict.fromkeys([0, 1, 2, rows - 3, rows - 2, rows - 1]))
    prompts.append(Prompt("first and last ids", tuple(number for number in edges if 0 <= number < rows)[:limit]))
    borders, not_reached = _borders(architecture, parameters)
    for length in sorted({min(length, limit) for length in LENGTHS} | borders):
        prompts.append(Prompt(f"{length:,} random ids", _random(rows, length, seed + length)))
    begun = max(1, min(BEGUN, limit // 2))
    prompts.append(Prompt("random ids, continued", _random(rows, begun, seed), min(CONTINUED, limit - begun)))
    return prompts, not_reached


def compared_positions(length: int) -> Tensor:
    """The positions of a sequence whose logits are compared, in order; the last is always among them."""
    if length <= COMPARED:
        return torch.arange(length)
    return torch.linspace(0, length - 1, COMPARED, dtype=torch.float64).round().long()


def _texts(architecture: Architecture, tokenizer: Tokenizer) -> list[Prompt]:
    prompts = []
    for number, text in enumerate(TEXTS, 1):
        tokens = tokenizer.tokenize(text)[: max(1, architecture.max_position_embeddings // 2)]
        room = architecture.max_position_embeddings - len(tokens)
        if tokens:
            prompts.append(Prompt(f"text {number}", tuple(tokens), min(CONTINUED, room) if number == 1 else 0))
    return prompts


def _borders(architecture: Architecture, parameters: int) -> tuple[set[int], list[str]]:
    """Lengths behind which a model computes something else than before, and sentences on those that are out of reach."""
    wanted: dict[int, str] = {}
    if architecture.sliding_window_width is not None:
        wanted[architecture.sliding_window_width + BEYOND] = "beyond the sliding window"
    original = (architecture.rope_scaling or {}).get("original_max_position_embeddings")
    if original:
        wanted[original + BEYOND] = "beyond the original context of the scaled rotations"
    if architecture.pos_emb == "learned":
        wanted[architecture.max_position_embeddings] = "to the end of the table of positions"
    reachable, sentences = set(), []
    longest = _longest(architecture, parameters)
    for length, what in wanted.items():
        length = min(length, architecture.max_position_embeddings)
        if length <= longest:
            reachable.add(length)
        else:
            sentences.append(f"{length:,} tokens, {what}, were not tried: they take too much memory or time")
    return reachable, sentences


def _longest(architecture: Architecture, parameters: int) -> int:
    by_memory = max(ATTENTION_BYTES, parameters) / 4 / architecture.num_attention_heads
    return int(min(by_memory**0.5, OPERATIONS / (2 * parameters)))


def _random(rows: int, length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(rows, (length,), generator=generator).tolist())


def continued(prompt: Prompt, continuation: Sequence[int]) -> Tensor:
    """Prompt and continuation as int64 [1, s]."""
    return torch.tensor([[*prompt.tokens, *continuation]])
