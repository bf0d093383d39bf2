"""A run that begins from a model of Hugging Face transformers, and text generated with it, without anything being converted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from megatron.conversion.mapping.architecture import config_keys
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.tokenizer.char_level import CharLevelTokenizer
from tests.end_to_end.runs import run_deepy, train
from tests.hugging_face_models import build_model, logits_of

LENGTH = 32
ENTRIES = 512
"""Of the tokenizer; the model has a few rows more."""
PROMPT = "def f(x):"
MAXIMUM = 12


def test_a_model_of_transformers_is_fine_tuned_and_generates_on_two_tensor_ranks(tmp_path: Path) -> None:
    model = tmp_path / "model"
    changes = {"vocab_size": ENTRIES + 5, "max_position_embeddings": 64}
    build_model("llama-2-70b", changes=changes).save_pretrained(model)
    sample = torch.from_numpy(np.random.default_rng(0).integers(32, 127, size=LENGTH))
    data = tmp_path / "data"
    with IndexedDatasetWriter(data, dtype=np.uint16) as writer:
        for _ in range(60):
            writer.add_document(np.tile(sample.numpy(), 3))  # so that all samples are the same
    keys = config_keys(HuggingFaceSource(model).architecture)
    settings = {
        **keys,
        "load": f"hf:{model}",
        "load_if_exists": False,
        "seq_length": LENGTH,
        "train_iters": 2,
        "num_gpus": 2,
        "model_parallel_size": 2,
        "finetune": True,
        "eval_interval": 1000,
    }
    run = train(tmp_path / "run", data, **settings)
    assert f"fine-tuning hf:{model}" in run.printed.replace("\n", "")
    tokens = torch.cat([sample, sample[:1]])[None]
    logits = logits_of(model, tokens[:, :-1])[0]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:]).item()
    assert run.losses[0] == pytest.approx(expected, rel=1e-5)
    assert run.losses[1] != pytest.approx(expected, rel=1e-3)

    prompts, samples, config = (tmp_path / name for name in ("prompts.txt", "samples.jsonl", "generate.yml"))
    prompts.write_text(PROMPT + "\n")
    wanted = {
        "text_gen_type": "input-file",
        "sample_input_file": str(prompts),
        "sample_output_file": str(samples),
        "maximum_tokens": MAXIMUM,
        "temperature": 0.0,
    }
    config.write_text(yaml.safe_dump({**yaml.safe_load((tmp_path / "run" / "config.yml").read_text()), **wanted}))
    generated = run_deepy(tmp_path, "generate.py", config)
    assert generated.exit_code == 0, generated.printed
    record = json.loads(samples.read_text())
    assert record["context"] == PROMPT
    assert record["text"] == greedy_text(model)


def greedy_text(model: Path) -> str:
    """What transformers appends to the prompt, of the tokens that the tokenizer has."""
    tokenizer = CharLevelTokenizer()
    tokens: Tensor = torch.tensor([tokenizer.tokenize(PROMPT)])
    length = tokens.shape[1]
    for _ in range(MAXIMUM):
        following = logits_of(model, tokens)[:, -1, :ENTRIES].argmax(-1)
        if int(following) == tokenizer.eod:
            break
        tokens = torch.cat([tokens, following[None]], dim=1)
    return tokenizer.detokenize(tokens[0, length:].tolist())
