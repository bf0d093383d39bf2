"""A conversation, and log-probabilities beside datasets, in layouts of two processes: the same as in one."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from rich.console import Console

from megatron.conversion.converting.write import write_checkpoint
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.generation.decode import Decoder, DecodingStep
from megatron.generation.interactive import converse
from megatron.generation.load import load_model
from megatron.generation.precompute import precompute
from megatron.generation.run import completion_settings
from megatron.initialize import World, join_world
from megatron.mpu.groups import single_process_groups
from tests.unit.conversion.in_memory import opened
from tests.unit.generation.models import SmallTokenizer
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args
from tests.worlds import run_world

MODELS = ("pythia", "llama")
LAYOUTS: Mapping[str, Mapping[str, int]] = {"tensor 2": {"model_parallel_size": 2}, "pipe 2": {"pipe_parallel_size": 2}}
LENGTHS = [5, 1, 17, 40, 2]
LONG = "A" * 16
TYPED = f"AB\n\n{LONG}\nAB\n"
RULE = "─" * 20


class LetterTokenizer(SmallTokenizer):
    """Characters from A on as the small vocabulary of the models."""

    def tokenize(self, text: str) -> list[int]:
        return [token - 64 for token in super().tokenize(text)]

    def detokenize(self, ids: Any) -> str:
        return super().detokenize([token + 64 for token in ids])


class InterruptedOnce(Decoder):
    """Somebody presses Ctrl-C before the fourth token of the first answer, which rank 0 alone sees."""

    first_answer = True

    def steps(self, *inputs: Any, **options: Any) -> Iterator[DecodingStep]:
        for number, step in enumerate(super().steps(*inputs, **options)):
            if self.first_answer and number == 3 and self.model.groups.rank == 0:
                self.first_answer = False
                os.kill(os.getpid(), signal.SIGINT)
            yield step


@dataclass(frozen=True)
class Found:
    """What a rank printed in a conversation, and whether it wrote beside the dataset."""

    printed: str
    numbers: list[list[float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modes")
    for name in MODELS:
        (folder / name).mkdir()
        write_checkpoint(opened(name).source, folder / name, config_yaml="")
    draw = np.random.default_rng(1)
    with IndexedDatasetWriter(folder / "mine_text_document", dtype=np.uint16) as writer:
        for length in LENGTHS:
            writer.add_document(draw.integers(0, VOCAB_SIZE, length))
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Found]:
    return {name: converse_and_precompute(folder, name, "one process") for name in MODELS}


@pytest.fixture(scope="module")
def together(folder: Path) -> list[dict[str, dict[str, Found]]]:
    return run_world(2, in_all_layouts, folder)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_a_conversation_is_that_of_one_process_and_only_rank_0_shows_it(
    name: str, layout: str, alone: dict[str, Found], together: list[dict[str, dict[str, Found]]]
) -> None:
    first, second = (rank[layout][name] for rank in together)
    assert first.printed == alone[name].printed
    assert second.printed == ""
    lines = first.printed.splitlines()
    stopped = lines.index("(stopped)")
    assert lines[stopped - 2] == lines[-2] == RULE
    assert (len(lines[stopped - 1]), len(lines[-1])) == (2 + 4, 2 + 10)
    assert [line[:30] for line in lines[stopped + 1 : -2]] == [
        "error: the prompt is empty: ty",
        "error: a prompt has 16 tokens,",
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_log_probabilities_are_those_of_one_process_and_of_whole_texts(
    name: str, layout: str, alone: dict[str, Found], together: list[dict[str, dict[str, Found]]], folder: Path
) -> None:
    found = together[0][layout][name].numbers
    assert [len(numbers) for numbers in found] == LENGTHS
    for numbers, expected in zip(found, alone[name].numbers, strict=True):
        assert numbers == pytest.approx(expected, rel=0, abs=1e-5)
    tokens = IndexedDataset(folder / "mine_text_document")[0].tolist()
    assert found[0] == pytest.approx(whole_text(folder, name, tokens), rel=0, abs=1e-5)


def whole_text(folder: Path, name: str, tokens: list[int]) -> list[float]:
    """The log-probability of each token but the first by the whole logits, and 0."""
    world = World(single_process_groups(), torch.device("cpu"))
    model = load_model(build_args(**VARIANTS[name], load=str(folder / name)), world, LetterTokenizer())
    hidden = model.hidden(torch.tensor([tokens]), torch.arange(len(tokens))[None])
    assert hidden is not None
    log_probabilities = model.gathered_logits(hidden[:, 0], vocab_size=VOCAB_SIZE).log_softmax(-1)
    return [*(float(log_probabilities[place, token]) for place, token in enumerate(tokens[1:])), 0.0]


def in_all_layouts(rank: int, folder: Path) -> dict[str, dict[str, Found]]:
    return {layout: {name: converse_and_precompute(folder, name, layout) for name in MODELS} for layout in LAYOUTS}


def converse_and_precompute(folder: Path, name: str, layout: str) -> Found:
    """Both modes on a model in a layout."""
    sizes = LAYOUTS.get(layout, {})
    args = build_args(
        **VARIANTS[name],
        **sizes,
        global_num_gpus=2 if sizes else 1,
        load=str(folder / name),
        maximum_tokens=10,
        temperature=1.0,
        text_gen_type="precompute",
        precompute_model_name=f"{name}_{layout.replace(' ', '_')}",
        data_path=str(folder / "mine_text_document"),
    )
    world = join_world(args) if sizes else World(single_process_groups(), torch.device("cpu"))
    tokenizer = LetterTokenizer()
    model = load_model(args, world, tokenizer)
    decoder = InterruptedOnce(model, vocab_size=VOCAB_SIZE, max_positions=16)
    printed = io.StringIO()
    screen = Console(file=printed, quiet=world.groups.rank != 0, highlight=False, soft_wrap=True, width=20)
    with patch.object(sys, "stdin", io.StringIO(TYPED)):
        converse(args, completion_settings(args), world, tokenizer, decoder, screen)
    precompute(args, world, tokenizer, lambda: model)
    written = (
        IndexedDataset(folder / f"mine_text_document_{args.precompute_model_name}") if world.groups.rank == 0 else []
    )
    return Found(printed.getvalue(), [numbers.tolist() for numbers in written])
