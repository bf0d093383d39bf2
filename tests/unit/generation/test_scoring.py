"""Scores are sums of log-probabilities that a plain softmax gives, whatever a request is batched with."""

from __future__ import annotations

import math

import pytest
import torch

from megatron.generation import scoring
from megatron.generation.model import InferenceModel
from megatron.generation.scoring import Scored, score
from megatron.mpu.groups import Group
from tests.unit.generation.test_decode import VOCABULARY, greedy_by_whole_texts, logits_of, model

REQUESTS = [
    Scored((5, 6, 7), (8, 9)),
    Scored((10,), (11,)),
    Scored((12, 13, 14, 15, 16, 17), (18, 19, 20, 21)),
    Scored((5, 6, 7), (30,)),
    Scored((5, 6, 7), (31,)),  # reads what the one before reads
    Scored((5, 6), (7, 30)),  # and so does this, for two tokens of it
    Scored((10,), (11,)),
]


def expected(network: InferenceModel, request: Scored) -> list[float]:
    """Each token's log-probability: its logit, less the logarithm of the sum of all exponentials, in Python numbers."""
    text, found = [*request.context, *request.continuation], []
    logits = logits_of(network, text)[:, :VOCABULARY].tolist()
    for place in range(len(request.context), len(text)):
        row = logits[place - 1]
        found.append(row[text[place]] - math.log(sum(math.exp(logit) for logit in row)))
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("changes", [{}, {"pos_emb": "learned"}, {"num_kv_heads": 2}])
def test_scores_are_sums_of_log_probabilities(batch_size: int, changes: dict[str, object]) -> None:
    network = model(**changes)
    scores = score(network, REQUESTS, vocab_size=VOCABULARY, batch_size=batch_size)
    for request, found in zip(REQUESTS, scores, strict=True):
        wanted = expected(network, request)
        assert found.log_probabilities == pytest.approx(wanted, abs=1e-5)
        assert found.log_likelihood == pytest.approx(sum(wanted), abs=1e-5)


def test_only_the_likeliest_tokens_are_greedy() -> None:
    network = model()
    likeliest = tuple(greedy_by_whole_texts(network, [5, 6, 7], 4))
    changed = [(*likeliest[:place], (likeliest[place] + 1) % VOCABULARY, *likeliest[place + 1 :]) for place in range(4)]
    requests = [Scored((5, 6, 7), tokens) for tokens in [likeliest, *changed]]
    assert [each.is_greedy for each in score(network, requests, vocab_size=VOCABULARY)] == [True, *[False] * 4]


def test_of_tokens_that_are_equally_likely_the_first_is_greedy() -> None:
    network = model()
    with torch.no_grad():
        network.get_parameter("0.word_embeddings.weight").zero_()  # which is the head's as well
    scores = score(network, [Scored((5,), (0,)), Scored((5,), (1,))], vocab_size=VOCABULARY)
    assert [each.is_greedy for each in scores] == [True, False]
    assert scores[0].log_likelihood == pytest.approx(-math.log(VOCABULARY))  # rows of padding do not count


def test_few_logits_at_once_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    whole = score(network, REQUESTS, vocab_size=VOCABULARY)
    sizes: list[int] = []
    logits = network.logits

    def seen(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return logits(hidden)

    monkeypatch.setattr(network, "logits", seen)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 3 * VOCABULARY)
    parts = score(network, REQUESTS, vocab_size=VOCABULARY)
    assert max(sizes) == 3
    for one, other in zip(whole, parts, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-6)


def test_long_rows_come_first_and_fewer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, shapes = model(), []
    hidden = network.hidden

    def seen(tokens: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor | None:
        shapes.append(tuple(tokens.shape))
        return hidden(tokens, position_ids)

    monkeypatch.setattr(network, "hidden", seen)
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 9)
    score(network, REQUESTS, vocab_size=VOCABULARY, batch_size=2)
    assert shapes == [(1, 9), (2, 4), (1, 1)]


def test_logits_in_half_precision_are_summed_in_single_precision() -> None:
    network = model(precision="bfloat16")
    network.to(torch.bfloat16)
    found = score(network, REQUESTS[:1], vocab_size=VOCABULARY)[0].log_probabilities
    assert found == pytest.approx(expected(network, REQUESTS[0]), abs=1e-5)
    coarse = logits_of(network, [5, 6, 7, 8])[:, :VOCABULARY].log_softmax(-1)[2, 8].item()
    assert found[0] != pytest.approx(coarse, abs=1e-5)  # what bf16 could not tell


def test_a_rank_that_has_only_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small vocabulary, padded for two ranks: the second one has no token."""
    network, asked = model(), torch.tensor([3, 8])
    logits = logits_of(network, [5, 6, 7, 8])[:2]
    real, padding = logits[:, :VOCABULARY], torch.full((2, VOCABULARY), 99.0)
    groups = [Group(rank, 2, (0, 1), None) for rank in range(2)]
    found = [
        scoring._findings(part, asked, group, VOCABULARY) for part, group in zip((real, padding), groups, strict=True)
    ]
    monkeypatch.setattr(scoring, "all_gather", lambda tensor, group, dim: torch.stack(found))
    log_probabilities, greedy = scoring._merged(found[0], groups[0])
    assert log_probabilities.tolist() == pytest.approx(real.log_softmax(-1).gather(1, asked[:, None])[:, 0].tolist())
    assert greedy.tolist() == (real.argmax(-1) == asked).double().tolist()


def test_nothing_asked_is_nothing_answered() -> None:
    assert score(model(), [], vocab_size=VOCABULARY) == []
