"""Tokenizers: ids and text both ways, the end of a document, batches, and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from megatron.errors import DataError, NeoXError
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe

REPOSITORY = Path(__file__).resolve().parents[3]
TEXTS = [
    "def f(x):\n    return x\n\n\nclass A:\n    def g(self):\n        return self.items[123]\n" * 20,
    "Ünïcödé, 日本語, עברית, 🙂👩‍👩‍👧, e\u0301 \u00a0 tab\there \r\n end  ",
    "",
    " ",
    "\n",
    "\x00\x01",
]


@pytest.fixture(scope="module")
def bpe() -> HFTokenizer:
    return train_bpe(TEXTS, vocab_size=400)


@pytest.fixture(params=["bpe", "char"])
def tokenizer(request: pytest.FixtureRequest, bpe: HFTokenizer) -> Tokenizer:
    return bpe if request.param == "bpe" else CharLevelTokenizer()


def test_text_comes_back_unchanged(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.detokenize(tokenizer.tokenize(text)) == text


@settings(deadline=None)
@given(text=st.text())
def test_any_unicode_comes_back_unchanged(text: str, bpe: HFTokenizer) -> None:
    for tokenizer in (bpe, CharLevelTokenizer()):
        ids = tokenizer.tokenize(text)
        assert tokenizer.detokenize(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_a_batch_gives_the_same_ids_as_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokenize_batch(TEXTS) == [tokenizer.tokenize(text) for text in TEXTS]


def test_char_level_ids_are_the_bytes_and_the_vocabulary_is_gpt_neoxs() -> None:
    tokenizer = CharLevelTokenizer()
    assert tokenizer.tokenize("aé") == [97, 0xC3, 0xA9]
    assert (tokenizer.vocab_size, tokenizer.eod) == (512, 0)
    assert tokenizer.detokenize([97, 300, 0xC3]) == "a\ufffd\ufffd"


def test_a_trained_tokenizer_begins_with_its_special_tokens_and_all_bytes(bpe: HFTokenizer) -> None:
    assert bpe.eod == 0
    assert bpe.tokenize("<|endoftext|><|padding|>") == [0, 1]
    assert 258 < bpe.vocab_size <= 400


def test_a_line_end_with_its_indentation_becomes_one_token_and_digits_are_split(bpe: HFTokenizer) -> None:
    ids = bpe.tokenize("\n        return self.items[12]")
    pieces = [bpe.detokenize([i]) for i in ids]
    assert pieces[0] == "\n        "
    assert pieces[-3:] == ["1", "2", "]"]


def test_training_depends_on_the_texts_and_not_on_their_order(bpe: HFTokenizer) -> None:
    assert train_bpe(reversed(TEXTS), vocab_size=400).fingerprint() == bpe.fingerprint()
    assert train_bpe(TEXTS, vocab_size=270).fingerprint() != bpe.fingerprint()


def test_training_refuses_no_text_and_a_vocabulary_without_room_for_the_bytes() -> None:
    with pytest.raises(DataError, match="no text"):
        train_bpe(["", ""], vocab_size=400)
    with pytest.raises(DataError, match="vocabulary of 257 is too small: the 258"):
        train_bpe(TEXTS, vocab_size=257)


def test_a_saved_tokenizer_loads_from_its_file_and_from_its_directory(bpe: HFTokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path / "new" / "tokenizer.json")
    for path in (tmp_path / "new" / "tokenizer.json", tmp_path / "new"):
        loaded = build_tokenizer(TokenizerSettings("HFTokenizer", str(path)))
        assert loaded.fingerprint() == bpe.fingerprint()
        assert loaded.tokenize(TEXTS[0]) == bpe.tokenize(TEXTS[0])
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["tokenizer.json"]


def test_the_vocabulary_size_covers_ids_beyond_holes(bpe: HFTokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    token = content["added_tokens"][0] | {"content": "<far>", "id": 5000}
    content["added_tokens"].append(token)
    content["model"]["vocab"]["<far>"] = 5000
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert HFTokenizer.from_file(tmp_path).vocab_size == 5001


def test_tokens_put_around_a_text_can_be_left_out(bpe: HFTokenizer) -> None:
    engine = tokenizers.Tokenizer.from_str(bpe.definition())
    engine.post_processor = TemplateProcessing(single="<|padding|> $A", special_tokens=[("<|padding|>", 1)])
    framed = HFTokenizer(engine.to_str(), origin="a test")
    assert framed.tokenize("x") == [1, *bpe.tokenize("x")]
    assert framed.tokenize_plain("x") == bpe.tokenize("x")
    assert framed.special_tokens == bpe.special_tokens == {0, 1}


def test_missing_and_malformed_files_are_data_errors_that_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='needs "vocab_file"'):
        build_tokenizer(TokenizerSettings("HFTokenizer"))
    with pytest.raises(DataError, match=r"absent\.json cannot be read"):
        build_tokenizer(TokenizerSettings("HFTokenizer", str(tmp_path / "absent.json")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no tokenizer\.json: check vocab_file\.$"):
        build_tokenizer(TokenizerSettings("HFTokenizer", str(tmp_path / "empty")))
    (tmp_path / "empty" / "tokenizer.model").touch()
    with pytest.raises(DataError, match=r'empty.tokenizer\.model is read by tokenizer_type "SPMTokenizer"'):
        build_tokenizer(TokenizerSettings("HFTokenizer", str(tmp_path / "empty")))
    (tmp_path / "wrong.json").write_text('{"text": 1}')
    with pytest.raises(DataError, match=r"wrong\.json is not a tokenizer\.json"):
        build_tokenizer(TokenizerSettings("HFTokenizer", str(tmp_path / "wrong.json")))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"binary\.json is not a text file"):
        build_tokenizer(TokenizerSettings("HFTokenizer", str(tmp_path / "binary.json")))


def test_an_unknown_type_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(NeoXError, match='"HFTokeniser" does not exist: choose one of GPT2BPETokenizer, HFTokenizer, '):
        build_tokenizer(TokenizerSettings("HFTokeniser"))


def test_no_tokenizer_module_imports_torch() -> None:
    names = [path.stem for path in (REPOSITORY / "megatron" / "tokenizer").glob("*.py") if path.stem != "__init__"]
    assert len(names) >= 5
    imports = "".join(f"import megatron.tokenizer.{name}\n" for name in names)
    code = f"import sys\n{imports}assert not {{'torch', 'deepspeed'}} & set(sys.modules), 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
