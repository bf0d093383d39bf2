"""What generation and evaluation compute with the weights of an engine is what one process computes with them, and training does not notice."""

from __future__ import annotations

import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron.generation.decode import Decoder
from megatron.generation.model import InferenceModel
from megatron.generation.sampling import GREEDY, draws_of
from megatron.model.sequential import SequentialModel
from megatron.model.spec import DTYPES, BuildContext
from megatron.mpu.shard import shard_of
from megatron.training.inference_view import inference_view
from tests.deepspeed_world import DIVIDE_ALL, Case, Engines, Full, Pieces, assemble, own_pieces, start_engine
from tests.toy_model import SEQUENCE, VOCABULARY
from tests.worlds import run_world

DROPOUT_AND_RECOMPUTATION = {
    "hidden_dropout": 0.2,
    "attention_dropout": 0.2,
    "checkpoint_activations": True,
    "pos_emb": "rotary",
    "num_attention_heads": 4,
}
IN_SEQUENCE = {**DROPOUT_AND_RECOMPUTATION, "sequence_parallel": True}
IN_PIECES = {**DROPOUT_AND_RECOMPUTATION, "zero_optimization": DIVIDE_ALL}
MOSTLY_WHOLE = {**DROPOUT_AND_RECOMPUTATION, "zero_optimization": {"stage": 3}}

LAYOUTS = {
    "data 2, stage 0, tied": Case(data=2, tied=True),
    "data 2, stage 2": Case(data=2, zero=2),
    "data 2, stage 3, tied": Case(data=2, zero=3, tied=True, overrides=IN_PIECES),
    "data 2, stage 3, small parameters whole": Case(data=2, zero=3, overrides=MOSTLY_WHOLE),
    "tensor 2 in sequence": Case(tensor=2, overrides=IN_SEQUENCE),
    "pipe 2": Case(pipe=2),
    "pipe 2, tied, bf16": Case(pipe=2, tied=True, precision="bfloat16"),
    "context 2, stage 1, fp16": Case(context=2, zero=1, precision="fp16"),
    "context 2, stage 3, bf16": Case(context=2, zero=3, precision="bfloat16", overrides=IN_PIECES),
    "pipe 2 x tensor 2 in sequence, tied": Case(pipe=2, tensor=2, tied=True, overrides=IN_SEQUENCE),
    "data 2 x tensor 2 in sequence, stage 3": Case(
        data=2, tensor=2, zero=3, overrides={**IN_SEQUENCE, "zero_optimization": DIVIDE_ALL}
    ),
}
LAYOUTS = {
    name: replace(case, gpt=True, overrides=case.overrides or DROPOUT_AND_RECOMPUTATION)
    for name, case in LAYOUTS.items()
}
COMPARED = [name for name, case in LAYOUTS.items() if case.zero >= 2 or case.precision == "bfloat16"]
"""Those that are trained once more without views; whole runs of further ones are in test_task_evaluation.py."""

HALF = {"fp32": 1e-5, "bfloat16": 5e-2, "fp16": 5e-3}
"""How far sums of log-probabilities may be from those of one process in the same precision, which adds in another order."""

TEXTS = [[5, 6, 7, 8, 9, 10, 11, 12], [13, 14, 15, 16], [17, 18]]
PROMPTS = [[5, 6, 7], [8], [9, 10]]


@dataclass(frozen=True)
class Outcome:
    """What a rank saw: of the view, the weights it had, and of training with and without views between the steps."""

    log_likelihoods: list[float] | None
    generated: list[list[int]]
    weights: Pieces
    with_views: list[float]
    without: list[float]
    held: tuple[Pieces, Pieces]
    whole_before_and_after: tuple[int, int]
    random_numbers_untouched: bool
    is_gone: bool
    weights_are_whole: bool


def observe(rank: int, names: Sequence[str]) -> list[Outcome]:
    return [observe_one(LAYOUTS[name], compared=name in COMPARED) for name in names]


def observe_one(case: Case, *, compared: bool) -> Outcome:
    with_views = start_engine(case)
    losses = [step(with_views, 0)]
    kept, random_state = kept_values(with_views), random_states()
    view = inference_view(with_views.args, with_views.engine, vocab_size=VOCABULARY, device=torch.device("cpu"))
    found = log_likelihoods(view), greedy(view)
    gone = weakref.ref(view)
    del view
    is_gone, untouched = gone() is None, same(random_state, random_states())
    whole = kept, kept_values(with_views)
    weights = own_pieces(with_views.engine, for_saving=True)
    losses += [step(with_views, 1), evaluate(with_views), step(with_views, 2)]
    without = start_engine(case) if compared else with_views
    return Outcome(
        *found,
        weights=weights,
        with_views=losses,
        without=[step(without, 0), step(without, 1), evaluate(without), step(without, 2)] if compared else [],
        held=(own_pieces(with_views.engine, for_saving=False), own_pieces(without.engine, for_saving=False)),
        whole_before_and_after=whole,
        random_numbers_untouched=untouched,
        is_gone=is_gone,
        weights_are_whole=with_views.engine.weights_are_whole,
    )


def step(run: Engines, number: int) -> float:
    return run.engine.train_step(keyed(run, number), lr=0.01).loss


def evaluate(run: Engines) -> float:
    loss, weight = run.engine.evaluate_step(keyed(run, 9))
    return loss / weight


def keyed(run: Engines, number: int) -> list[Any] | None:
    """The batches of a step, with what dropout needs."""
    batches = run.batches(number)
    if batches is None:
        return None
    return [replace(batch, dropout_keys=torch.arange(len(batch.tokens)) + 100 * number) for batch in batches]


def kept_values(run: Engines) -> int:
    """How many values of weights this process has in its parameters now."""
    return sum(parameter.numel() for parameter in run.engine.model.parameters())


def random_states() -> list[Any]:
    return [torch.get_rng_state().numpy(), random.getstate(), np.random.get_state()[1]]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True))


def log_likelihoods(model: InferenceModel) -> list[float] | None:
    """Of each text behind its first token, on the last stage."""
    tokens = torch.tensor([[*text, *[0] * (SEQUENCE - len(text))] for text in TEXTS])
    hidden = model.hidden(tokens, torch.arange(SEQUENCE).expand_as(tokens))
    if hidden is None:
        return None
    logits = model.gathered_logits(hidden.flatten(0, 1), vocab_size=VOCABULARY)
    return sums(logits.unflatten(0, hidden.shape[:2]).transpose(0, 1))


def sums(logits: Tensor) -> list[float]:
    """From logits [texts, s, v]."""
    log_probabilities = logits.float().log_softmax(dim=-1)
    return [
        float(sum(log_probabilities[row, place, token] for place, token in enumerate(text[1:])))
        for row, text in enumerate(TEXTS)
    ]


def greedy(model: InferenceModel) -> list[list[int]]:
    decoder = Decoder(model, vocab_size=VOCABULARY, max_positions=SEQUENCE)
    draws = [draws_of(0, row) for row in range(len(PROMPTS))]
    steps = decoder.steps(PROMPTS, maximum_tokens=4, sampling=GREEDY, draws=draws)
    return torch.stack([each.tokens for each in steps], dim=1).tolist()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """By layout, of each rank; the layouts of one world size share a world."""
    found = {}
    for size in (2, 4):
        names = [name for name, case in LAYOUTS.items() if case.world_size == size]
        of_ranks = run_world(size, observe, names)
        found |= {name: [of_rank[index] for of_rank in of_ranks] for index, name in enumerate(names)}
    return found


def plain_model(case: Case, weights: Full) -> SequentialModel:
    """One process's model with the given fp32 weights, rounded to the precision of the case."""
    plain = replace(
        case, overrides={**case.overrides, "sequence_parallel": False}, tensor=1, pipe=0, data=1, context=1, zero=0
    )
    model = SequentialModel(plain.specs(), BuildContext(dtype=DTYPES[case.precision]), seed=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            full = weights[f"{shard_of(parameter).name}/weight"]
            parameter[: full.shape[0]] = full
    return model


@torch.no_grad()
def expected(case: Case, weights: Full) -> tuple[list[float], list[list[int]]]:
    """Log-likelihoods, and greedy tokens by running each whole text for every token."""
    model = plain_model(case, weights)

    def logits(text: list[int]) -> Tensor:
        return model(torch.tensor([text]), torch.arange(len(text))[None])[0, :, :VOCABULARY].float()

    scores = []
    for text in TEXTS:
        log_probabilities = logits(text[:-1]).log_softmax(dim=-1)
        scores.append(sum(float(log_probabilities[place, token]) for place, token in enumerate(text[1:])))
    generated = []
    for prompt in PROMPTS:
        text = list(prompt)
        for _ in range(4):
            text.append(int(logits(text)[-1].argmax()))
        generated.append(text[len(prompt) :])
    return scores, generated


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_view_computes_what_one_process_computes_with_the_same_weights(
    name: str, outcomes: dict[str, list[Outcome]]
) -> None:
    case, of_ranks = LAYOUTS[name], outcomes[name]
    scores, generated = expected(case, assemble([each.weights for each in of_ranks])[0])
    told = [each.log_likelihoods for each in of_ranks if each.log_likelihoods is not None]
    assert len(told) == case.world_size // max(case.pipe, 1)
    for each in told:
        assert each == pytest.approx(scores, abs=HALF[case.precision] * SEQUENCE)
    assert len({str(each.generated) for each in of_ranks}) == 1
    if case.precision == "fp32":
        assert of_ranks[0].generated == generated


@pytest.mark.parametrize("name", COMPARED)
def test_training_goes_on_to_the_bit_as_if_there_had_been_no_view(
    name: str, outcomes: dict[str, list[Outcome]]
) -> None:
    for each in outcomes[name]:
        assert each.with_views == each.without
        with_views, without = each.held
        assert list(with_views) == list(without)
        for parameter, (_, parts) in with_views.items():
            for (_, values), (_, others) in zip(parts, without[parameter][1], strict=True):
                assert np.array_equal(values, others), parameter


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_view_leaves_nothing_behind(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    for each in outcomes[name]:
        before, after = each.whole_before_and_after
        assert before == after
        assert each.is_gone
        assert each.random_numbers_untouched
        assert each.weights_are_whole == (LAYOUTS[name].zero < 3)
