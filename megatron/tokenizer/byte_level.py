"""GPT-2's byte-level BPE from its two files: vocab.json (token -> id) and merges.txt (one pair a line, the most frequent first).

A text is cut into pieces by GPT-2's pattern, the bytes of a piece are written as 256 printable characters, and pairs of neighbours are
merged in the order of the file. `tokenizers` does all of it; this builds its tokenizer and refuses files that would lose text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from megatron.errors import DataError
from megatron.tokenizer.files import read_json_object, read_text

VOCABULARY = "a vocab.json, as GPT-2's"
MERGES = "a merges.txt, as GPT-2's"


def byte_level_bpe(vocab_file: Path, merge_file: Path, *, merge_key: str = "merge_file") -> Any:
    """The `tokenizers.Tokenizer` of a vocab.json and a merges.txt, without special tokens: their text is text like any other.

    merge_key: the configuration key that led to `merge_file`. Raises DataError when a file is missing, malformed or does not fit.
    """
    vocabulary = _read_vocabulary(vocab_file)
    merges = _read_merges(merge_file, merge_key)
    for first, second in merges:
        absent = next((token for token in (first, second, first + second) if token not in vocabulary), None)
        if absent is not None:
            raise DataError(
                f'the merges in {merge_file} do not belong to the vocabulary {vocab_file}: it has no token "{absent}". '
                f"Check vocab_file and {merge_key}."
            )
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = decoders.ByteLevel()
    return engine


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json_object(path, key="vocab_file", what=VOCABULARY)
    ids = list(vocabulary.values())
    if not all(type(number) is int and number >= 0 for number in ids) or len(set(ids)) < len(ids):
        raise DataError(
            f"the tokenizer {path} is not a map from tokens to ids of their own: vocab_file must be {VOCABULARY}."
        )
    missing = [character for character in sorted(pre_tokenizers.ByteLevel.alphabet()) if character not in vocabulary]
    if missing:
        raise DataError(
            f"the tokenizer {path} is not byte-level: {len(missing)} of the 256 bytes have no token "
            f'("{missing[0]}", for one). vocab_file must be {VOCABULARY}.'
        )
    return vocabulary


def _read_merges(path: Path, key: str) -> list[tuple[str, str]]:
    lines = read_text(path, key=key, what=MERGES).split("\n")
    merges = []
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        first, space, second = line.partition(" ")
        if not (first and space and second) or " " in second:
            raise DataError(f"{path}:{number} is not a pair of tokens: {key} must be {MERGES}.")
        merges.append((first, second))
    return merges
