"""The tokenizer of a run in the files that Hugging Face transformers reads, kept only if that library makes the same ids of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from megatron.checkpointing.files import write_durably
from megatron.conversion.export.config import SpecialTokens
from megatron.conversion.proving.prompts import TEXTS
from megatron.conversion.proving.theirs import import_transformers, reason_of
from megatron.errors import CheckpointError
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.files import read_json_object, read_text
from megatron.tokenizer.hf import HFTokenizer, read_engine
from megatron.tokenizer.sentencepiece import SPMTokenizer

TOKENIZER, SENTENCEPIECE, SETTINGS = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
FILES = (
    TOKENIZER,
    SENTENCEPIECE,
    SETTINGS,
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""What a tokenizer of transformers may consist of."""
COMPARED = (*TEXTS, "", " leading", "trailing ", "two  blanks,\n\n\n    indented", "\u00e9 e\u0301 \ufb01 \u2126")
PADDINGS = ("<|padding|>", "<|pad|>", "<pad>", "[PAD]")
"""Tokens that are there for padding; without one of them the end of a document takes their place, as nothing is learnt behind it."""


def check_entries(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise CheckpointError when a tokenizer may give an id for which the model has no row."""
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer ({tokenizer.name}) has {tokenizer.vocab_size:,} entries, and the model {vocab_size:,} rows: it is not this model's"
        )


def chat_template(vocab_file: str | None) -> Any:
    """The chat template that lies beside the file of a tokenizer, as tokenizer_config.json has it; None without one."""
    if vocab_file is None:
        return None
    place = Path(vocab_file)
    directory = place if place.is_dir() else place.parent
    if (directory / TEMPLATE).is_file():
        return read_text(directory / TEMPLATE, key="vocab_file", what="the directory of a tokenizer")
    if not (directory / SETTINGS).is_file():
        return None
    return read_json_object(directory / SETTINGS, key="vocab_file", what="the directory of a tokenizer").get(
        "chat_template"
    )


def write_tokenizer(
    tokenizer: Tokenizer, directory: Path, *, longest: int, is_reward_model: bool, template: Any = None
) -> tuple[SpecialTokens, str]:
    """Write the files into `directory`; the special tokens, and a sentence when no files are written because transformers cannot have this tokenizer.

    longest: tokens that the model reads at most; is_reward_model: then no ordinary token may stand for padding, as scores are read in front of it;
    template: for chats.
    """
    end = tokenizer.eod
    tokens = SpecialTokens(end, end, None if is_reward_model else end)
    try:
        engine = _write_engine(tokenizer, directory)
    except _NotTheirs as reason:
        _remove(directory)
        return tokens, f"no tokenizer files were written: {reason}"
    padding = next((name for name in PADDINGS if engine.token_to_id(name) is not None), None)
    if padding is not None:
        tokens = replace(tokens, padding=engine.token_to_id(padding))
    names = {
        "bos_token": tokens.begin,
        "eos_token": tokens.end,
        "pad_token": tokens.padding,
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: engine.id_to_token(number) for key, number in names.items() if number is not None},
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        **({} if template is None else {"chat_template": template}),
    }
    write_durably(directory / SETTINGS, (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())
    problem = tokenizer_difference(directory, tokenizer)
    if problem:
        _remove(directory)
        return tokens, f"no tokenizer files were written: {problem}"
    return tokens, ""


def copy_files(model: Path, directory: Path) -> list[str]:
    """Copy the tokenizer of a model of transformers as it is; a sentence when it has none."""
    found = [name for name in FILES if (model / name).is_file()]
    for name in found:
        shutil.copyfile(model / name, directory / name)
    return [] if found else [f"no tokenizer files were written: {model} has none"]


def tokenizer_difference(directory: Path, tokenizer: Tokenizer) -> str:
    """A sentence when transformers makes other ids of some text than `tokenizer`; "" when it makes the same of all."""
    transformers = import_transformers()
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        found = [theirs(text)["input_ids"] for text in COMPARED]
    except Exception as error:  # what may be wrong has no common base there
        return _sentence(transformers, tokenizer, error)
    for text, ids in zip(COMPARED, found, strict=True):
        if ids != tokenizer.tokenize(text):
            return f"transformers {transformers.__version__} makes other ids of {text!r} with those of {tokenizer.name}"
    return ""


class _NotTheirs(Exception):
    """A sentence why transformers cannot have a tokenizer."""


def _write_engine(tokenizer: Tokenizer, directory: Path) -> Any:
    """The `tokenizers.Tokenizer` that transformers will run, which is written. Raises _NotTheirs."""
    if isinstance(tokenizer, HFTokenizer):
        tokenizer.save(directory / TOKENIZER)
        return read_engine(tokenizer.definition(), origin=tokenizer.name)
    if isinstance(tokenizer, SPMTokenizer):
        tokenizer.save(directory / SENTENCEPIECE)
        engine = _llama_engine(tokenizer, directory)
        write_durably(directory / TOKENIZER, engine.to_str(pretty=True).encode())
        return engine
    raise _NotTheirs(f"transformers has nothing like {tokenizer.name}")


def _llama_engine(tokenizer: Tokenizer, directory: Path) -> Any:
    """That of a SentencePiece model of Llama's kind: pairs merged by rank, bytes for unknown characters. Raises _NotTheirs.

    The blank in front of a text is put there whatever it begins with, as the SentencePiece library does; transformers' own settings leave it
    out where there is one.
    """
    transformers = import_transformers()
    try:
        engine = transformers.LlamaTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer
    except Exception as error:  # what may be wrong has no common base there
        raise _NotTheirs(_sentence(transformers, tokenizer, error)) from error
    engine.pre_tokenizer = None
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    engine.post_processor = None  # which would put a token in front of every text
    return engine


def _remove(directory: Path) -> None:
    for name in (TOKENIZER, SENTENCEPIECE, SETTINGS):
        (directory / name).unlink(missing_ok=True)


def _sentence(transformers: Any, tokenizer: Tokenizer, error: Exception) -> str:
    return f"transformers {transformers.__version__} cannot read those of {tokenizer.name}: {reason_of(error)}"
