"""Tokenizers in the files of Hugging Face transformers: the same ids there, or no files and a sentence."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from megatron.conversion.export.config import SpecialTokens
from megatron.conversion.export.tokenizer import chat_template, check_entries, tokenizer_difference, write_tokenizer
from megatron.errors import CheckpointError
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.tokenizer.sentencepiece import SPMTokenizer
from tests.unit.tokenizer.small import TEXTS, every_kind

JSON = ["tokenizer.json", "tokenizer_config.json"]
FILES = {
    "GPT2BPETokenizer": JSON,
    "HFTokenizer": JSON,
    "HFGPT2Tokenizer": JSON,
    "SPMTokenizer": ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"],
    "TiktokenTokenizer": [],
    "CharLevelTokenizer": [],
}


@pytest.fixture(scope="module")
def tokenizers_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    settings = every_kind(tmp_path_factory.mktemp("tokenizers"))
    return {kind: build_tokenizer(args) for kind, args in settings.items()}


def exported(tokenizer: Tokenizer, directory: Path, **options: bool) -> tuple[SpecialTokens, str]:
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return write_tokenizer(tokenizer, directory, longest=2048, is_reward_model=options.get("is_reward_model", False))


@pytest.mark.parametrize("kind", FILES)
def test_transformers_makes_the_same_ids_or_there_are_no_files(
    kind: str, tokenizers_by_kind: dict[str, Tokenizer], tmp_path: Path
) -> None:
    tokenizer = tokenizers_by_kind[kind]
    tokens, remark = exported(tokenizer, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("tok*")) == FILES[kind]
    assert (tokens.begin, tokens.end) == (tokenizer.eod, tokenizer.eod)
    if not FILES[kind]:
        assert remark == f"no tokenizer files were written: transformers has nothing like {kind}"
        return
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert remark == ""
    assert theirs.model_max_length == 2048
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokens.end, tokens.padding)
    text = "def f(x):\n    return self.items[123]  Ünïcödé, 日本語 🙂 "
    assert theirs(text)["input_ids"] == tokenizer.tokenize(text)
    assert theirs.decode(tokenizer.tokenize(text)) == tokenizer.detokenize(tokenizer.tokenize(text))


def test_a_model_that_transformers_reads_otherwise_is_left_out(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:3]), model_writer=model, vocab_size=330, hard_vocab_limit=False, minloglevel=2
    )
    _, remark = exported(SPMTokenizer(model.getvalue(), origin="folds blanks"), tmp_path)
    assert remark.startswith("no tokenizer files were written: transformers ")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_changed_file_is_seen(tokenizers_by_kind: dict[str, Tokenizer], tmp_path: Path) -> None:
    tokenizer = tokenizers_by_kind["HFTokenizer"]
    exported(tokenizer, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-40]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "makes other ids of " in tokenizer_difference(tmp_path, tokenizer)
    (tmp_path / "tokenizer.json").write_text("{")
    assert "cannot read those of HFTokenizer" in tokenizer_difference(tmp_path, tokenizer)


def test_no_ordinary_token_stands_for_padding_of_a_reward_model(
    tokenizers_by_kind: dict[str, Tokenizer], tmp_path: Path
) -> None:
    gpt2 = tokenizers_by_kind["GPT2BPETokenizer"]
    tokens, _ = exported(gpt2, tmp_path, is_reward_model=True)
    assert tokens == SpecialTokens(gpt2.eod, gpt2.eod, None)
    assert "pad_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    padded, _ = exported(tokenizers_by_kind["HFGPT2Tokenizer"], tmp_path, is_reward_model=True)
    assert padded.padding == gpt2.eod + 1


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_goes_along(where: str, tokenizers_by_kind: dict[str, Tokenizer], tmp_path: Path) -> None:
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    source, out = tmp_path / "source", tmp_path / "out"
    for directory in (source, out):
        directory.mkdir()
    content = template if where.endswith("jinja") else json.dumps({"chat_template": template})
    (source / where).write_text(content)
    assert chat_template(None) is None
    assert chat_template(str(out / "tokenizer.json")) is None
    write_tokenizer(
        tokenizers_by_kind["HFTokenizer"],
        out,
        longest=2048,
        is_reward_model=False,
        template=chat_template(str(source / "tokenizer.json")),
    )
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "hello"}]
    said = AutoTokenizer.from_pretrained(out).apply_chat_template(chat, tokenize=False)
    assert said == "<user>hello"


def test_a_tokenizer_with_more_entries_than_rows_is_refused() -> None:
    check_entries(CharLevelTokenizer(), 512)
    with pytest.raises(CheckpointError, match=r"CharLevelTokenizer\) has 512 entries, and the model 511 rows"):
        check_entries(CharLevelTokenizer(), 511)
