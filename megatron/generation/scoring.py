"""How likely a model finds given texts: the log-probability of each token of a continuation that follows a context.

Every row is padded on the right and begins at its first column, so that what a row is beside changes nothing. The head runs only where
something is asked, over a bounded number of positions at once, and the vocabulary stays divided among the tensor-parallel ranks: from
each comes its largest logit m_i and where it lies, s_i = sum_j exp(z_j - m_i), and the logit z_y of the token asked for, if it has it.
With m = max_i m_i,

    log p(y) = z_y - m - log(sum_i s_i exp(m_i - m)).

Shapes: `b` rows, `s` columns, `h` hidden, `n` positions asked for, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.generation.model import InferenceModel
from megatron.mpu.collectives import all_gather
from megatron.mpu.groups import Group

TOKENS_AT_ONCE = 2**16
"""Columns of all rows of a batch together, whatever its rows."""
LOGITS_AT_ONCE = 2**24
"""Logits that a rank looks at together, about: 64 MiB in fp32."""


@dataclass(frozen=True)
class Scored:
    """Tokens to score: those of the continuation, each after all that come before it. The context has one token at least."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens the model has to read: all but the last one, which nothing follows."""
        return (self.context + self.continuation)[:-1]


@dataclass(frozen=True)
class Score:
    """log_probabilities: natural, of each token of the continuation; is_greedy: whether each was the most likely one."""

    log_probabilities: tuple[float, ...]
    is_greedy: bool

    @property
    def log_likelihood(self) -> float:
        """The natural logarithm of the probability of the whole continuation."""
        return math.fsum(self.log_probabilities)


@dataclass(frozen=True)
class _Row:
    """Tokens that are read, and the numbers of all requests which they serve: often choices that differ in their last token only."""

    tokens: tuple[int, ...]
    requests: tuple[int, ...]


@torch.no_grad()
def score(model: InferenceModel, requests: Sequence[Scored], *, vocab_size: int, batch_size: int = 8) -> list[Score]:
    """The scores, in the order of the requests, on every rank of the model; all of them give the same requests.

    vocab_size: rows of the vocabulary without padding, over which probabilities sum to 1; batch_size: rows that are read at once, the
    longest first, and fewer where they are very long. Logits are turned into fp32 (or what is more) first. No request may be longer
    than the model reads. The stages of a pipeline wait for one another only at the end, so it is best to give many requests at once.
    """
    if not requests:
        return []
    rows = _rows(requests)
    batches = list(_batches(rows, batch_size))
    order = [number for batch in batches for row in batch for number in row.requests]
    asked = sum(len(request.continuation) for request in requests)
    told = torch.empty(2, asked, dtype=torch.float64, device=model.device)
    found = [found for batch in batches for found in _score_batch(model, batch, requests, vocab_size)]
    if found:
        told = _merged(torch.cat(found, dim=1), model.groups.tensor)
    log_probabilities, greedy = model.tell_all_stages(told).tolist()
    scores, end = {}, 0
    for number in order:
        begin, end = end, end + len(requests[number].continuation)
        scores[number] = Score(tuple(log_probabilities[begin:end]), all(greedy[begin:end]))
    return [scores[number] for number in range(len(requests))]


def _rows(requests: Sequence[Scored]) -> list[_Row]:
    """What has to be read, each once, the longest first: then want of memory shows at once, and batches are of like lengths."""
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        numbers.setdefault(request.read, []).append(number)
    rows = [_Row(tokens, tuple(who)) for tokens, who in numbers.items()]
    return sorted(rows, key=lambda row: len(row.tokens), reverse=True)


def _batches(rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
    """Rows that are read together."""
    begin = 0
    while begin < len(rows):
        fitting = max(TOKENS_AT_ONCE // max(len(rows[begin].tokens), 1), 1)
        end = begin + min(batch_size, fitting)
        yield list(rows[begin:end])
        begin = end


def _score_batch(
    model: InferenceModel, batch: Sequence[_Row], requests: Sequence[Scored], vocab_size: int
) -> Iterator[Tensor]:
    """This rank's findings for all positions that a batch's requests ask for, in their order, [5, n] at a time; none before the last stage."""
    columns = len(batch[0].tokens)
    tokens = torch.tensor([row.tokens + (0,) * (columns - len(row.tokens)) for row in batch], device=model.device)
    hidden = model.hidden(tokens, torch.arange(columns, device=model.device).expand_as(tokens))
    if hidden is None:
        return
    places = [
        (column, number, token)
        for number, row in enumerate(batch)
        for request in row.requests
        for column, token in enumerate(requests[request].continuation, start=len(requests[request].context) - 1)
    ]
    at_column, of_row, wanted = torch.tensor(places, dtype=torch.int64, device=model.device).reshape(-1, 3).unbind(-1)
    size = max(LOGITS_AT_ONCE * model.groups.tensor.size // vocab_size, 1)
    for part in torch.arange(len(places), device=model.device).split(size):
        logits = model.logits(hidden[at_column[part], of_row[part]])
        yield _findings(logits, wanted[part], model.groups.tensor, vocab_size)


def _findings(logits: Tensor, wanted: Tensor, group: Group, vocab_size: int) -> Tensor:
    """What this rank's part of the logits [n, v/t] has to say of the tokens `wanted` [n]: fp64 [5, n] of

    the largest logit, which token has it, the sum of exponentials, the logit of the wanted token (-inf: another rank's), and that token.
    """
    start = group.rank * logits.shape[1]
    own = min(max(vocab_size - start, 0), logits.shape[1])  # the rest is padding
    findings = torch.full((5, len(logits)), -torch.inf, dtype=torch.float64, device=logits.device)
    largest, place, exponentials, found, asked = findings.unbind()
    asked.copy_(wanted)
    if own == 0:
        place.zero_()
        exponentials.zero_()
        return findings
    logits = logits[:, :own].to(torch.promote_types(logits.dtype, torch.float32))
    maximum = logits.max(dim=1)
    index = (wanted - start)[:, None]
    elsewhere = (index < 0) | (index >= own)
    largest.copy_(maximum.values)
    place.copy_(maximum.indices + start)
    exponentials.copy_((logits - maximum.values[:, None]).exp_().sum(dim=1))
    found.copy_(logits.gather(1, index.masked_fill(elsewhere, 0)).masked_fill(elsewhere, -torch.inf)[:, 0])
    return findings


def _merged(findings: Tensor, group: Group) -> Tensor:
    """The findings of all tensor-parallel ranks [5, n] -> fp64 [2, n]: the log-probability, and 1 where the token is the most likely one."""
    largest, place, exponentials, found, wanted = all_gather(findings[None], group, dim=0).unbind(1)
    maximum, winner = largest.max(dim=0)  # the first of equal ones, as within a rank
    total = (exponentials * (largest - maximum).exp()).sum(dim=0)
    log_probabilities = found.amax(dim=0) - maximum - total.log()
    return torch.stack([log_probabilities, (place.gather(0, winner[None])[0] == wanted[0]).double()])
