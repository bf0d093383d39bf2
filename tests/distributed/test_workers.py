"""What rank 0 asks for is done once by the copies of a model together, or by each of them, and however it ends, it ends on all ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from megatron.errors import DataError, NeoXError
from megatron.evaluation import work
from megatron.evaluation.work import Wanted, Workers
from megatron.generation.complete import CompletionSettings, complete_tokens
from megatron.generation.decode import Decoder
from megatron.generation.model import InferenceModel, build_inference_model
from megatron.generation.sampling import SamplingSettings
from megatron.generation.scoring import Score, Scored, score
from megatron.initialize import join_world
from megatron.mpu.groups import ProcessGroups
from megatron.tokenizer.char_level import CharLevelTokenizer
from tests.distributed.matrix.ranks import temporary_groups
from tests.unit.model.builders import NORMAL, VARIANTS, build_args
from tests.worlds import error_of, run_world

TOKENIZER = CharLevelTokenizer()
ROWS = TOKENIZER.vocab_size
LENGTH = 16
BATCH_SIZE = 2
REQUESTS = [Scored(tuple(range(1, 2 + number % 7)), (number, number + 1)) for number in range(20)]
REQUESTS += [Scored((1, 2, 3), (number,)) for number in range(30)]  # which read the same
READ = len({request.read for request in REQUESTS})
GREEDY = CompletionSettings(5)
SAMPLED = CompletionSettings(6, SamplingSettings(temperature=1.0), seed=3)
AGAIN = 5
WANTED = [Wanted((9, 9, 9), SAMPLED)] * AGAIN
WANTED += [Wanted(tuple(range(1, 2 + number % 5)), SAMPLED if number % 3 else GREEDY) for number in range(11)]


@dataclass
class Found:
    """On one rank. rows: how many were read for the scores, shared out and not; errors: by what went wrong."""

    scores: list[list[Score] | None]
    completions: list[list[list[int]] | None]
    rows: list[int]
    errors: dict[str, str]
    plain: list[float]
    groups: int


@pytest.fixture(scope="module")
def found() -> list[Found]:
    return run_world(2, _work)


def _model(groups: ProcessGroups) -> InferenceModel:
    args = build_args(**VARIANTS["llama"], global_num_gpus=2)
    model = build_inference_model(args, vocab_size=ROWS, groups=groups, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            NORMAL(parameter, generator)
    return model


def _work(rank: int) -> Found:
    args = build_args(**VARIANTS["llama"], global_num_gpus=2)
    groups = join_world(args).groups
    model = _model(groups)
    found = Found([], [], [], {}, [], 0)
    with temporary_groups(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "BATCHES_IN_ORDER", 2)  # several orders
        before = len(torch.distributed.distributed_c10d._world.pg_map)
        for shares in (True, False):
            workers = _workers(model, groups, shares_requests=shares)
            rows = _count_rows(
                model, lambda workers=workers: found.scores.append(workers.run(lambda: workers.score(REQUESTS)))
            )
            found.rows.append(rows)
            found.completions.append(workers.run(lambda workers=workers: workers.generate(WANTED)))
        workers = _workers(model, groups)
        too_long = Wanted(tuple(range(1, LENGTH + 1)), GREEDY)
        for name, action in {
            "of ours": lambda: _fail(DataError("no such task")),
            "of others": lambda: _fail(KeyError("name\nmore")),
            "inside an order": lambda: workers.generate([*WANTED, too_long]),
        }.items():
            found.errors[name] = error_of(lambda action=action: workers.run(action))
        found.errors["afterwards"] = error_of(lambda: workers.run(lambda: workers.score(REQUESTS[:3])))
        found.groups = len(torch.distributed.distributed_c10d._world.pg_map) - before
    found.plain = [each.log_likelihood for each in score(model, REQUESTS, vocab_size=ROWS)]
    return found


def _workers(model: InferenceModel, groups: ProcessGroups, **options: Any) -> Workers:
    decoder = Decoder(model, vocab_size=ROWS, max_positions=LENGTH)
    return Workers(decoder, TOKENIZER, groups, vocab_size=ROWS, batch_size=BATCH_SIZE, **options)


def _count_rows(model: InferenceModel, action: Callable[[], None]) -> int:
    """How many rows the model reads meanwhile."""
    hidden, rows = model.hidden, 0

    def counted(tokens: torch.Tensor, *arguments: Any) -> torch.Tensor | None:
        nonlocal rows
        rows += len(tokens)
        return hidden(tokens, *arguments)

    model.hidden = counted  # type: ignore[method-assign]
    try:
        action()
    finally:
        model.hidden = hidden  # type: ignore[method-assign]
    return rows


def _fail(error: Exception) -> None:
    raise error


def test_scores_come_back_in_order(found: list[Found]) -> None:
    for scores in found[0].scores:
        assert scores is not None
        assert [each.log_likelihood for each in scores] == pytest.approx(found[0].plain, abs=1e-5)
    assert found[1].scores == [None, None]


def test_copies_share_the_requests_or_each_does_all(found: list[Found]) -> None:
    shared, whole = ([each.rows[place] for each in found] for place in (0, 1))
    assert sum(shared) == READ
    assert max(shared) - min(shared) <= 3  # one at most for every order
    assert whole == [READ, READ]


def test_samples_do_not_depend_on_who_draws_them(found: list[Found]) -> None:
    shared, whole = found[0].completions
    assert shared == whole
    assert shared is not None
    assert [len(tokens) for tokens in shared] == [each.settings.maximum_tokens for each in WANTED]
    assert len({tuple(tokens) for tokens in shared[:AGAIN]}) == AGAIN  # each its own numbers, in whatever batch


def test_completions_are_those_of_the_prompts(found: list[Found]) -> None:
    def plain(rank: int) -> list[list[int]]:
        args = build_args(**VARIANTS["llama"], global_num_gpus=1)
        decoder = Decoder(_model(join_world(args).groups), vocab_size=ROWS, max_positions=LENGTH)
        prompts = [each.prompt for each in WANTED if each.settings == GREEDY]
        return [each.tokens for each in complete_tokens(decoder, TOKENIZER, prompts, GREEDY)]

    shared = found[0].completions[0]
    assert shared is not None
    assert run_world(1, plain)[0] == [
        tokens for tokens, each in zip(shared, WANTED, strict=True) if each.settings == GREEDY
    ]


def test_errors_are_told_on_all_ranks_and_the_next_work_goes_on(found: list[Found]) -> None:
    assert found[0].errors == found[1].errors
    errors = found[0].errors
    assert errors["of ours"] == "no such task"
    assert errors["of others"] == "the evaluation failed: KeyError: 'name\\nmore'"
    assert errors["inside an order"].startswith(f"a prompt has {LENGTH} tokens, and the model reads at most {LENGTH}")
    assert errors["afterwards"] == "no error"


def test_no_group_is_left_behind(found: list[Found]) -> None:
    assert [each.groups for each in found] == [0, 0]


def _break_off(rank: int) -> None:
    args = build_args(**VARIANTS["llama"], global_num_gpus=2)
    groups = join_world(args).groups
    model = _model(groups)
    if rank == 1:
        model.hidden = lambda *_: _fail(MemoryError("planted"))  # type: ignore[assignment, func-returns-value]
    workers = _workers(model, groups)
    workers.run(lambda: workers.score(REQUESTS))


def test_a_rank_that_breaks_off_takes_all_with_it() -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match="MemoryError: planted") as caught:
        run_world(2, _break_off)
    assert "rank 0:" in str(caught.value)  # it fails as well
    assert NeoXError.__name__ not in str(caught.value).split("rank 1:")[0]
    assert time.monotonic() - started < 60
