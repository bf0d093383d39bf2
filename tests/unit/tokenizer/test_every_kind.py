"""What holds for a tokenizer of any type: text and ids, worker processes, and the names on the menu."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from megatron.components import TOKENIZERS
from megatron.data.encoding.files import encode_files
from megatron.data.encoding.worker import EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from tests.unit.tokenizer.small import TEXTS, every_kind

KINDS = tuple(TOKENIZERS)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenizerSettings]:
    return every_kind(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, kinds: dict[str, TokenizerSettings]) -> TokenizerSettings:
    return kinds[request.param]


@pytest.fixture
def tokenizer(settings: TokenizerSettings) -> Tokenizer:
    return build_tokenizer(settings)


def test_a_tokenizer_has_the_name_it_is_chosen_by(settings: TokenizerSettings, tokenizer: Tokenizer) -> None:
    assert tokenizer.name == settings.tokenizer_type


def test_text_comes_back_unchanged_from_ids_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        ids = tokenizer.tokenize(text)
        assert tokenizer.detokenize(ids) == text
        assert all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
    assert 0 <= tokenizer.eod < tokenizer.vocab_size


def test_a_batch_gives_the_same_ids_as_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokenize_batch(TEXTS) == [tokenizer.tokenize(text) for text in TEXTS]


def test_special_tokens_are_no_part_of_a_text(tokenizer: Tokenizer) -> None:
    special = tokenizer.special_tokens
    assert tokenizer.eod in special
    assert all(0 <= number < tokenizer.vocab_size for number in special)
    for text in TEXTS[:3]:
        assert special.isdisjoint(tokenizer.tokenize(text))
        assert tokenizer.tokenize_plain(text) == tokenizer.tokenize(text)


def test_a_continuation_is_the_text_behind_the_prompt(tokenizer: Tokenizer) -> None:
    prompt, rest = tokenizer.tokenize("return self"), tokenizer.tokenize("self.items")
    assert tokenizer.continuation(prompt, rest).strip() == "self.items"
    assert tokenizer.continuation([], rest) == "self.items"


def test_the_fingerprint_is_that_of_the_files_and_of_no_other_type(
    settings: TokenizerSettings, tokenizer: Tokenizer, kinds: dict[str, TokenizerSettings]
) -> None:
    assert build_tokenizer(settings).fingerprint() == tokenizer.fingerprint()
    others = [build_tokenizer(other).fingerprint() for name, other in kinds.items() if name != tokenizer.name]
    assert tokenizer.fingerprint() not in others


def test_one_worker_and_three_give_the_same_bytes(settings: TokenizerSettings, tmp_path: Path) -> None:
    texts = [TEXTS[i % len(TEXTS)] + f"{i} " * (i * 37 % 900) for i in range(900)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert (tmp_path / "a.jsonl").stat().st_size > 1 << 20  # several pieces
    recipe = pickle.loads(pickle.dumps(EncodeRecipe(settings, append_eod=True)))
    outputs = []
    for workers in (1, 3):
        prefix = tmp_path / f"with_{workers}"
        encode_files([tmp_path / "a.jsonl"], recipe, output_prefix=prefix, workers=workers)
        outputs.append([Path(f"{prefix}_text_document{suffix}").read_bytes() for suffix in (".bin", ".idx")])
    assert outputs[0] == outputs[1]
    tokenizer, dataset = build_tokenizer(settings), IndexedDataset(tmp_path / "with_3_text_document")
    kept = [text for text in texts if text]
    assert len(dataset) == len(kept)
    for i, text in enumerate(kept):
        *ids, last = dataset[i].tolist()
        assert (tokenizer.detokenize(ids), last) == (text, tokenizer.eod)
