"""Samples follow the filtered distribution: chi-square tests against filters written once more, in numpy and fp64.

Seeds are fixed; a test fails below a p-value of 0.001. Each also shows that it would see samples of the unfiltered distribution.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from megatron.generation.complete import CompletionSettings, complete_tokens
from megatron.generation.decode import Decoder
from megatron.generation.model import InferenceModel
from megatron.generation.sampling import SamplingSettings, choose_tokens, draws_of
from tests.unit.generation.test_complete import ShiftedTokenizer
from tests.unit.generation.test_decode import VOCABULARY, logits_of, model

SMALLEST_P = 0.001
SAMPLES = 8000
FILTERS = [
    SamplingSettings(temperature=0.7),
    SamplingSettings(temperature=1.6),
    SamplingSettings(temperature=1.0, top_k=5),
    SamplingSettings(temperature=1.0, top_p=0.8),
    SamplingSettings(temperature=1.3, top_k=9, top_p=0.7),
]
Numbers = NDArray[np.float64]


def filtered(logits: Numbers, settings: SamplingSettings) -> Numbers:
    """Probabilities [v] after temperature, top-k and top-p, token by token in the order of their likelihood."""
    weights = np.exp(logits / settings.temperature - np.max(logits / settings.temperature))
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    order = order[: settings.top_k] if settings.top_k else order
    total, reached, kept = weights[order].sum(), 0.0, []
    for token in order:
        if settings.top_p and reached >= settings.top_p:
            break
        kept.append(token)
        reached += weights[token] / total
    result = np.zeros_like(weights)
    result[kept] = weights[kept] / weights[kept].sum()
    return result


def p_value(counts: Numbers, probabilities: Numbers) -> float:
    """Of Pearson's chi-square test; outcomes that are expected fewer than 5 times count as one. 0 when something impossible happened."""
    if counts[probabilities == 0].any():
        return 0.0
    expected = probabilities * counts.sum()
    often = expected >= 5
    observed, wanted = counts[often], expected[often]
    if not often.all() and expected[~often].sum() > 0:
        observed, wanted = np.append(observed, counts[~often].sum()), np.append(wanted, expected[~often].sum())
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(wanted) - 1) / 2), torch.tensor(statistic / 2)))


@pytest.mark.parametrize("settings", FILTERS, ids=str)
def test_tokens_follow_the_filtered_distribution(settings: SamplingSettings) -> None:
    logits = np.random.default_rng(1).normal(0, 1.5, size=40)
    rows = torch.tensor(logits, dtype=torch.float32).expand(SAMPLES, -1)
    tokens = choose_tokens(rows, settings, [draws_of(7, sample) for sample in range(SAMPLES)])
    counts = np.bincount(tokens.numpy(), minlength=40).astype(float)
    assert p_value(counts, filtered(logits, settings)) > SMALLEST_P
    assert p_value(counts, filtered(logits, SamplingSettings(temperature=1.0))) < 1e-9


@pytest.mark.parametrize("settings", [SamplingSettings(0.8, 6), SamplingSettings(1.2, 8, 0.75)], ids=str)
def test_pairs_of_tokens_of_a_model_follow_the_filtered_distribution(settings: SamplingSettings) -> None:
    network, prompt, samples = model(init_method_std=0.1), [3, 1, 4], 4000
    decoder = Decoder(network, vocab_size=VOCABULARY, max_positions=16)
    counts: dict[tuple[int, int], float] = {}
    for start in range(0, samples, 1000):
        wanted = CompletionSettings(2, settings, seed=5)
        for completion in complete_tokens(decoder, NeverEnding(), [prompt] * 1000, wanted, first_sample=start):
            first, second = completion.tokens
            counts[first, second] = counts.get((first, second), 0) + 1
    expected = {
        (first, second): float(probability * following[second])
        for first, probability in enumerate(filtered(after(network, prompt), settings))
        if probability > 0
        for following in [filtered(after(network, [*prompt, first]), settings)]
        for second in np.flatnonzero(following).tolist()
    }
    assert len(expected) > 15
    assert counts.keys() <= expected.keys()
    observed = np.array([counts.get(pair, 0.0) for pair in expected])
    assert p_value(observed, np.array(list(expected.values()))) > SMALLEST_P
    assert p_value(observed, np.full(len(expected), 1 / len(expected))) < 1e-9


def after(network: InferenceModel, text: list[int]) -> Numbers:
    """The logits [v] behind a text that is run whole."""
    return logits_of(network, text)[-1, :VOCABULARY].double().numpy()


class NeverEnding(ShiftedTokenizer):
    """No token ends a document."""

    @property
    def eod(self) -> int:
        return -1
