"""Tokenizers in the manner of well-known ones, trained here: what differs between families, and matters for speed and equality."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from megatron.tokenizer.fast.patterns import LLAMA3, QWEN2
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe

FAMILIES = ("gpt2", "neox", "llama3", "qwen", "own")
"""GPT-2; GPT-NeoX-20B: NFC, and tokens for runs of spaces; Llama 3: its pattern, a token before every text; Qwen: its pattern, NFC;
own: what tools/datasets/train_tokenizer.py trains."""
END, BEGIN = "<|endoftext|>", "<|begin|>"


def train_family(name: str, texts: Iterable[str], *, vocab_size: int) -> HFTokenizer:
    """The tokenizer of one of FAMILIES, with `vocab_size` entries and its added tokens."""
    if name == "own":
        return train_bpe(texts, vocab_size=vocab_size)
    engine = tokenizers.Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in ("llama3", "qwen"):
        split = pre_tokenizers.Split(Regex(LLAMA3 if name == "llama3" else QWEN2), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if name in ("neox", "qwen"):
        engine.normalizer = normalizers.NFC()
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    if name == "neox":
        engine.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
        engine.add_special_tokens(["<|padding|>"])
    if name == "llama3":
        engine.add_special_tokens([BEGIN])
        begin = [(BEGIN, engine.token_to_id(BEGIN))]
        engine.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=begin)
    if name == "qwen":
        engine.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return HFTokenizer(engine.to_str(), origin=name)
