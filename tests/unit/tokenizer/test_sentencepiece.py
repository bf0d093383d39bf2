"""SentencePiece models: the library's ids, the end of a document, text both ways, and training."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings

from megatron.errors import DataError, MissingRequirement
from megatron.planning.model.vocabulary import find_vocabulary
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.sentencepiece import SPMTokenizer
from megatron.tokenizer.train_sentencepiece import LONGEST_LINE, MODEL_TYPES, train_sentencepiece
from tests.unit.planning.builders import arguments
from tests.unit.tokenizer.small import ANY_TEXT, TEXTS, sentencepiece_file


@pytest.fixture(scope="module", params=MODEL_TYPES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    sentencepiece_file(path, model_type=request.param)
    return path


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Tokenizer:
    return build_tokenizer(TokenizerSettings("SPMTokenizer", str(file)))


def like_llamas(**options: object) -> bytes:
    """A model trained with the library itself: `<unk>`, `<s>` and `</s>` first, no end of text, unless `options` say otherwise."""
    model = io.BytesIO()
    settings = {"vocab_size": 330, "byte_fallback": True, "hard_vocab_limit": False, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS[:3]), model_writer=model, **settings)
    return model.getvalue()


@settings(deadline=None)
@given(text=ANY_TEXT.map(lambda text: text.replace("\u2581", "_")))  # the library's own sign for a space
def test_the_ids_are_the_librarys_and_lead_back(text: str, tokenizer: Tokenizer, file: Path) -> None:
    ids = tokenizer.tokenize(text)
    assert ids == sentencepiece.SentencePieceProcessor(model_file=str(file)).encode(text)
    assert tokenizer.detokenize(ids) == text


def test_pieces_are_used_and_counted(tokenizer: Tokenizer, file: Path) -> None:
    assert len(tokenizer.tokenize(TEXTS[0])) < 0.8 * len(TEXTS[0])
    assert tokenizer.vocab_size == sentencepiece.SentencePieceProcessor(model_file=str(file)).get_piece_size()
    planned = find_vocabulary(arguments(tokenizer_type="SPMTokenizer", vocab_file=str(file)))
    assert planned.size == tokenizer.vocab_size


def test_a_model_trained_here_has_the_end_of_text_of_gpt_neox(tokenizer: Tokenizer) -> None:
    assert tokenizer.eod == 1
    assert tokenizer.detokenize([1]) == "<|endoftext|>"
    assert tokenizer.eod not in tokenizer.tokenize("<|endoftext|>")


def test_a_model_without_end_of_text_ends_documents_with_its_end_of_sequence() -> None:
    assert SPMTokenizer(like_llamas(), origin="here").eod == 2
    assert SPMTokenizer(like_llamas(eos_id=5, eos_piece="<end>"), origin="here").eod == 5
    assert SPMTokenizer(like_llamas(control_symbols=["<|endoftext|>"]), origin="here").eod == 3


def test_a_model_without_either_needs_the_token_by_name() -> None:
    model = like_llamas(eos_id=-1, control_symbols=["<stop>"])
    with pytest.raises(DataError, match=r'tokenizer here has no token .* Set "eod_token" to one of <s>, <stop>'):
        SPMTokenizer(model, origin="here")
    assert SPMTokenizer(model, origin="here", eod_token="<stop>").eod == 2
    with pytest.raises(DataError, match='"eod_token" is "<other>"'):
        SPMTokenizer(model, origin="here", eod_token="<other>")


def test_control_tokens_stay_visible_and_ids_of_nothing_become_a_sign() -> None:
    tokenizer = SPMTokenizer(like_llamas(), origin="here")
    x, y = tokenizer.tokenize("return x"), tokenizer.tokenize("return y")
    assert tokenizer.detokenize([1, *x, 2, 1, *y]) == "<s>return x</s><s>return y"
    assert tokenizer.detokenize([tokenizer.vocab_size, *x, 10**6]) == "\ufffdreturn x\ufffd"


def test_a_continuation_keeps_the_space_that_a_text_of_its_own_would_lose(tokenizer: Tokenizer) -> None:
    whole = tokenizer.tokenize("return self return")
    at = next(i for i in range(len(whole)) if tokenizer.detokenize(whole[:i]) == "return self")
    assert tokenizer.continuation(whole[:at], whole[at:]) == " return"


MISTAKES = {
    b"": "is not a SentencePiece model that sentencepiece .* can read",
    b"#version: 0.2\na b\n": "is not a SentencePiece model that sentencepiece .* can read",
    b'{"model": {}}': "vocab_file must be a SentencePiece model",
}


@pytest.mark.parametrize(("content", "message"), MISTAKES.items())
def test_a_file_that_is_no_model_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(content)
    with pytest.raises(DataError, match=rf"the tokenizer .*a\.model .*{message}"):
        build_tokenizer(TokenizerSettings("SPMTokenizer", str(tmp_path / "a.model")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='"SPMTokenizer" needs "vocab_file": a SentencePiece model'):
        build_tokenizer(TokenizerSettings("SPMTokenizer"))
    with pytest.raises(DataError, match=r"absent\.model cannot be read .*: check vocab_file"):
        build_tokenizer(TokenizerSettings("SPMTokenizer", str(tmp_path / "absent.model")))


def test_a_cut_off_model_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.model is not a SentencePiece model"):
        build_tokenizer(TokenizerSettings("SPMTokenizer", str(tmp_path / "a.model")))


def test_without_the_package_the_requirements_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.delitem(sys.modules, "megatron.tokenizer.sentencepiece")
    with pytest.raises(MissingRequirement, match=r'"sentencepiece": pip install -r .*/requirements-sentencepiece\.txt'):
        build_tokenizer(TokenizerSettings("SPMTokenizer", "a.model"))


# Training


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_training_depends_on_the_texts_and_not_on_their_order(model_type: str) -> None:
    first, second = (
        train_sentencepiece(texts, vocab_size=400, model_type=model_type) for texts in (TEXTS, reversed(TEXTS))
    )
    assert first.fingerprint() == second.fingerprint()
    assert first.vocab_size <= 400


def test_a_long_line_is_not_left_out() -> None:
    tokenizer = train_sentencepiece(["word " * LONGEST_LINE], vocab_size=270, model_type="bpe")
    assert len(tokenizer.tokenize("word word")) == 2


def test_training_refuses_no_text_and_a_vocabulary_that_is_too_small() -> None:
    with pytest.raises(DataError, match="no text"):
        train_sentencepiece(["", ""], vocab_size=400)
    with pytest.raises(DataError, match="vocabulary of 259 is too small: 259 special"):
        train_sentencepiece(TEXTS, vocab_size=259)
    with pytest.raises(DataError, match=r"vocabulary of 270 on this text: Vocabulary size is smaller"):
        train_sentencepiece(TEXTS, vocab_size=270)
