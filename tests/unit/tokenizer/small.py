"""Small tokenizers of every kind, made from a few texts, in the files that real ones come in."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.train import train_bpe
from megatron.tokenizer.train_sentencepiece import train_sentencepiece

TEXTS = [
    "def f(x):\n    return x\n\n\nclass A:\n    def g(self):\n        return self.items[123]\n" * 20,
    "It's what they'd say: we'll, you've, I'm, they're DON'T. Numbers 1234567890 and 3.14, 50 %.   \n\n  \t x",
    "Ünïcödé, 日本語, עברית, 🙂👩‍👩‍👧, e\u0301 \u00a0 tab\there \r\n end  ",
    "",
    " ",
    "\n",
    "\x00\x01",
    "<|endoftext|>a<|endoftext|> </s> <|padding|>",
]
END_OF_TEXT = "<|endoftext|>"
GPT2_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_WORDS = ["return", " return", "self", " x", "    ", "\n", "'ll", "12", " Ünïcödé", "日本", "🙂", END_OF_TEXT, " "]
# Characters that some library does not know yet are cut in different ways by different libraries.
ANY_TEXT = st.lists(
    st.sampled_from(_WORDS) | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=8), max_size=12
).map("".join)
"""Arbitrary text, half of it words that have tokens of their own."""


def byte_characters() -> list[str]:
    """The printable character that GPT-2 writes for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def gpt2_files(directory: Path, *, special_tokens: Sequence[str] = (END_OF_TEXT,)) -> TokenizerSettings:
    """A vocab.json and a merges.txt in GPT-2's order: printable bytes, other bytes, merges, special tokens."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(TEXTS, trainer=trainer)
    merges = [tuple(merge) for merge in json.loads(engine.to_str())["model"]["merges"]]
    characters = byte_characters()
    in_order = sorted(characters, key=lambda character: (ord(character) >= 0x100, ord(character)))
    tokens = [*in_order, *("".join(merge) for merge in merges), *special_tokens]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TokenizerSettings("GPT2BPETokenizer", str(directory / "vocab.json"), str(directory / "merges.txt"))


def sentencepiece_file(file: Path, *, model_type: str = "bpe") -> TokenizerSettings:
    """A SentencePiece model."""
    train_sentencepiece(TEXTS, vocab_size=400, model_type=model_type).save(file)
    return TokenizerSettings("SPMTokenizer", str(file))


def tiktoken_ranks(directory: Path) -> dict[bytes, int]:
    """The tokens of `gpt2_files` as bytes, special ones left out."""
    gpt2_files(directory)
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    vocabulary = json.loads((directory / "vocab.json").read_text())
    return {bytes(byte_of[c] for c in token): i for token, i in vocabulary.items() if token != END_OF_TEXT}


def tiktoken_file(file: Path, *, pattern: str = GPT2_PIECES) -> TokenizerSettings:
    """A .tiktoken file with its companion; its end of document has a hole before it."""
    ranks = tiktoken_ranks(file.parent / "gpt2")
    file.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
    special = {END_OF_TEXT: len(ranks) + 1, "<|fim|>": len(ranks) + 2}
    file.with_suffix(".json").write_text(json.dumps({"pat_str": pattern, "special_tokens": special}))
    return TokenizerSettings("TiktokenTokenizer", str(file))


def every_kind(directory: Path) -> dict[str, TokenizerSettings]:
    """A tokenizer of each type."""
    train_bpe(TEXTS, vocab_size=400).save(directory / "hf" / "tokenizer.json")
    gpt2 = gpt2_files(directory / "gpt2")
    return {
        "GPT2BPETokenizer": gpt2,
        "HFTokenizer": TokenizerSettings("HFTokenizer", str(directory / "hf")),
        "HFGPT2Tokenizer": TokenizerSettings("HFGPT2Tokenizer", str(directory / "gpt2")),
        "SPMTokenizer": sentencepiece_file(directory / "tokenizer.model"),
        "TiktokenTokenizer": tiktoken_file(directory / "small.tiktoken"),
        "CharLevelTokenizer": TokenizerSettings("CharLevelTokenizer"),
    }
