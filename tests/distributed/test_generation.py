"""Text of any layout is that of `transformers` on the exported model: token for token when greedy, and equal between layouts when sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.converting.write import write_checkpoint
from megatron.generation.complete import CompletionSettings, complete_tokens
from megatron.generation.decode import Decoder
from megatron.generation.load import load_model
from megatron.generation.model import InferenceModel
from megatron.generation.sampling import GREEDY, SamplingSettings
from megatron.initialize import World, join_world
from megatron.mpu.groups import single_process_groups
from megatron.mpu.linear import ParallelLinear
from megatron.mpu.packed import can_pack
from tests.unit.conversion.in_memory import MemorySource, opened, weights_of
from tests.unit.generation.models import SmallTokenizer
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args
from tests.worlds import run_world

TOKENS = 24
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [7], [2, 7, 1, 8, 2]]
POSITIONS = {"max_position_embeddings": 48, "seq_length": 48}
MODELS: Mapping[str, float] = {"pythia": 3, "llama": 3, "opt": 3, "mpt": 3}
"""Variants: rotations and parallel residuals; grouped heads and rmsnorm; learned positions; alibi. The number multiplies their matrices,
such that each token depends on all before it, and greedy text does not repeat itself at once."""
SAMPLED = SamplingSettings(temperature=1.2, top_k=20, top_p=0.95)
LAYOUTS: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "one process": (1, {}),
    "tensor 2": (2, {"model_parallel_size": 2}),
    "pipe 2": (2, {"pipe_parallel_size": 2}),
    "tensor 2, pipe 2": (4, {"model_parallel_size": 2, "pipe_parallel_size": 2}),
}


@dataclass(frozen=True)
class Text:
    """Tokens of each prompt, and the model's log-probabilities of them."""

    tokens: list[list[int]]
    log_probabilities: list[list[float]]


@dataclass
class Found:
    """What our code generated with a model, by how the model was stored and decoded, and what it sampled."""

    greedy: dict[str, Text] = field(default_factory=dict)
    sampled: dict[str, Text] = field(default_factory=dict)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model as we save it and as it is exported: FOLDER/MODEL/ours and FOLDER/MODEL/theirs."""
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        original = opened(name, **POSITIONS)
        matrices = {
            tensor: MODELS[name] * value if value.dim() > 1 else value
            for tensor, value in weights_of({**VARIANTS[name], **POSITIONS}).items()
        }
        original = replace(original, source=MemorySource(matrices))
        (folder / name / "ours").mkdir(parents=True)
        write_checkpoint(original.source, folder / name / "ours", config_yaml="")
        assert to_hugging_face(original, folder / name / "theirs").equal
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Text]:
    """What transformers generates, each prompt alone."""
    return {name: generated_by_transformers(folder / name / "theirs") for name in MODELS}


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, dict[str, Found]]:
    """What we generate, by layout and model; all ranks agree."""
    results = {"one process": generate_in(0, folder, ["one process"])["one process"]}
    for size in (2, 4):
        layouts = [name for name, (world, _) in LAYOUTS.items() if world == size]
        first, *others = run_world(size, generate_in, folder, layouts)
        assert all(other == first for other in others)
        results |= first
    return results


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_is_that_of_transformers_token_for_token(
    name: str, layout: str, found: dict[str, dict[str, Found]], expected: dict[str, Text]
) -> None:
    wanted = expected[name]
    assert all(len(row) == TOKENS and len(set(row)) >= 4 for row in wanted.tokens)
    for way, text in found[layout][name].greedy.items():
        assert text.tokens == wanted.tokens, way
        for row, theirs in zip(text.log_probabilities, wanted.log_probabilities, strict=True):
            assert row == pytest.approx(theirs, rel=0, abs=1e-5), way


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_a_seed_are_the_same_in_every_layout_and_batch(
    name: str, found: dict[str, dict[str, Found]]
) -> None:
    texts = [text for by_model in found.values() for text in by_model[name].sampled.values()]
    assert len(texts) == len(LAYOUTS) + 1
    for text in texts:
        assert text.tokens == texts[0].tokens
        for row, first in zip(text.log_probabilities, texts[0].log_probabilities, strict=True):
            assert row == pytest.approx(first, rel=0, abs=1e-5)
    assert texts[0].tokens != found["one process"][name].greedy["ours, cache"].tokens


def generate_in(rank: int, folder: Path, layouts: list[str]) -> dict[str, dict[str, Found]]:
    """By layout and model. The exported model is read from its files, ours from its checkpoint."""
    return {layout: {name: generate(folder / name, name, layout) for name in MODELS} for layout in layouts}


def generate(directory: Path, name: str, layout: str) -> Found:
    """Greedy and sampled text of a model in a layout."""
    size, sizes = LAYOUTS[layout]
    world, found = None, Found()
    for stored in ("ours", "theirs") if size < 4 else ("ours",):
        load = str(directory / stored) if stored == "ours" else f"hf:{directory / stored}"
        settings: dict[str, Any] = {**VARIANTS[name], **POSITIONS, **sizes, "global_num_gpus": size, "load": load}
        args = build_args(**settings)
        world = world or (World(single_process_groups(), torch.device("cpu")) if size == 1 else join_world(args))
        model = load_model(args, world, SmallTokenizer())
        assert is_packed(model) or not can_pack(torch.ones(1))
        decoder = Decoder(model, vocab_size=VOCAB_SIZE, max_positions=args.max_position_embeddings)
        found.greedy[f"{stored}, cache"] = complete(decoder, PROMPTS, GREEDY)
        if stored == "ours":
            found.sampled["batch"] = complete(decoder, PROMPTS, SAMPLED)
        elif layout == "one process":
            alone = [complete(decoder, [prompt], SAMPLED, first_sample=row) for row, prompt in enumerate(PROMPTS)]
            tokens = [text.tokens[0] for text in alone]
            found.sampled["alone"] = Text(tokens, [text.log_probabilities[0] for text in alone])
        else:
            decoder = Decoder(model, vocab_size=VOCAB_SIZE, max_positions=args.max_position_embeddings, recompute=True)
            found.greedy["recompute"] = complete(decoder, PROMPTS, GREEDY)
    return found


def is_packed(model: InferenceModel) -> bool:
    return all(module.weight.numel() == 0 for module in model.modules() if isinstance(module, ParallelLinear))


def complete(decoder: Decoder, prompts: list[list[int]], sampling: SamplingSettings, *, first_sample: int = 0) -> Text:
    """What `complete_tokens` gives."""
    settings = CompletionSettings(TOKENS, sampling, seed=11)
    completions = complete_tokens(decoder, SmallTokenizer(), prompts, settings, first_sample=first_sample)
    return Text([each.tokens for each in completions], [each.log_probabilities for each in completions])


def generated_by_transformers(directory: Path) -> Text:
    """Greedy text by `generate()`, and log-probabilities from running each whole text."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    text = Text([], [])
    for prompt in PROMPTS:
        tokens = torch.tensor([prompt])
        with torch.inference_mode():
            whole = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            log_probabilities = model(whole).logits[0].log_softmax(-1)
        new = whole[0, len(prompt) :].tolist()
        text.tokens.append(new)
        text.log_probabilities.append(
            [float(log_probabilities[len(prompt) - 1 + column, token]) for column, token in enumerate(new)]
        )
    return text
