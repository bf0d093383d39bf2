"""A small tokenised text that every end-to-end run trains on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from megatron.data.encoding.files import encode_files
from megatron.data.encoding.worker import EncodeRecipe
from megatron.tokenizer.base import TokenizerSettings


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a dataset of 300 documents of words, tokenised by characters."""
    directory = tmp_path_factory.mktemp("small_data")
    source = directory / "documents.jsonl"
    generator = random.Random(0)
    words = ["import", "def", "return", "class", "self", "lambda", "yield", "pass"]
    with source.open("w") as file:
        for _ in range(300):
            text = " ".join(generator.choices(words, k=generator.randint(1, 60)))
            file.write(json.dumps({"text": text}) + "\n")
    recipe = EncodeRecipe(TokenizerSettings("CharLevelTokenizer"), append_eod=True)
    (encoded,) = encode_files([source], recipe, output_prefix=directory / "small").datasets
    return Path(encoded.prefix)
