"""Exported models where people take them: other programs compute with them, from text to text, what ours computes.

The last word on log-likelihoods is that of lm-evaluation-harness, which is run where it is installed (`pip install "lm-eval[hf]"`, half a
gigabyte with what it brings).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.mapping.architecture import architecture_of
from megatron.conversion.opening import OpenedModel
from megatron.generation.complete import CompletionSettings, complete
from megatron.generation.decode import Decoder
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer
from tests.unit.conversion.in_memory import MemorySource
from tests.unit.generation.models import inference_model
from tests.unit.model.builders import VARIANTS, build_args, parameters_by_name, perturb
from tests.unit.tokenizer.small import gpt2_files

ROWS, POSITIONS = 401, 64
PROMPTS = ["def f(x):", "    return self.items[", "It's what"]
REQUESTS = [("def f(x):", "\n    return x\n"), ("class A:\n    def", " g(self):"), ("", "return 123")]


@dataclass(frozen=True)
class Exported:
    """The same model here and there."""

    model: SequentialModel
    tokenizer: Tokenizer
    directory: Path


@pytest.fixture(scope="module", params=["llama", "pythia"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small random model with a tokenizer of 401 entries, written as transformers reads it."""
    place = tmp_path_factory.mktemp(request.param)
    files = gpt2_files(place / "tokenizer")
    args = build_args(
        **VARIANTS[request.param],
        max_position_embeddings=POSITIONS,
        tokenizer_type=files.tokenizer_type,
        vocab_file=files.vocab_file,
        merge_file=files.merge_file,
    )
    model = SequentialModel(build_layer_specs(args, vocab_size=ROWS, padded_vocab_size=ROWS), BuildContext(), seed=None)
    perturb(model)
    weights = {f"{name}/weight": parameter.detach() for name, parameter in parameters_by_name(model).items()}
    opened = OpenedModel(MemorySource(weights), architecture_of(args, vocab_size=ROWS), "a model", place, args)
    to_hugging_face(opened, place / "model")
    return Exported(model, build_tokenizer(args), place / "model")


def test_a_pipeline_of_transformers_writes_what_ours_writes(exported: Exported) -> None:
    from transformers import pipeline

    decoder = Decoder(inference_model(exported.model), vocab_size=ROWS, max_positions=POSITIONS)
    ours = complete(decoder, exported.tokenizer, PROMPTS, CompletionSettings(12))
    generate = pipeline("text-generation", model=str(exported.directory))
    theirs = generate(PROMPTS, max_new_tokens=12, do_sample=False, return_full_text=False)
    assert [completion.text for completion in ours] == [row[0]["generated_text"] for row in theirs]
    assert len({completion.text for completion in ours}) == len(PROMPTS)


def test_the_harness_finds_the_log_likelihoods_of_ours(exported: Exported) -> None:
    reason = 'lm-eval is not installed (pip install "lm-eval[hf]", half a gigabyte)'
    harness: Any = pytest.importorskip("lm_eval.models.huggingface", reason=reason)
    from lm_eval.api.instance import Instance

    model = harness.HFLM(pretrained=str(exported.directory), device="cpu", dtype="float32", batch_size=2)
    found = model.loglikelihood([Instance("loglikelihood", {}, texts, 0) for texts in REQUESTS])
    ours = [_log_likelihood(exported, *texts) for texts in REQUESTS]
    assert [value for value, _ in found] == pytest.approx(ours, rel=1e-5)


@torch.inference_mode()
def _log_likelihood(exported: Exported, context: str, continuation: str) -> float:
    """Of a continuation, whose tokens are those of the whole text behind the context's; an empty context is the end of a document."""
    encode = exported.tokenizer.tokenize
    behind = len(encode(context))
    tokens = encode(context + continuation)
    tokens, behind = (tokens, behind) if context else ([exported.tokenizer.eod, *tokens], 1)
    ids = torch.tensor([tokens])
    logits = exported.model(ids[:, :-1], torch.arange(len(tokens) - 1)[None])
    chosen = logits[0].double().log_softmax(-1).gather(-1, ids[0, 1:, None])
    return float(chosen[behind - 1 :].sum())
