"""How many entries the vocabulary has, without loading a tokenizer: from the config, from the vocabulary file, or assumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import DataError
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.derive import model_vocab_size
from megatron.tokenizer.tiktoken_file import read_tiktoken_file

ASSUMED = {
    "HFTokenizer": (50277, "that of GPT-NeoX-20B's tokenizer"),
    "GPT2BPETokenizer": (50257, "that of GPT-2"),
    "HFGPT2Tokenizer": (50258, "that of GPT-2 and a token for padding"),
    "SPMTokenizer": (32000, "that of Llama and Llama 2"),
    "TiktokenTokenizer": (100277, "that of cl100k_base"),
}
"""Entries by tokenizer_type, and whose they are, where no file tells."""

FOLDER = ("tokenizer.json", "vocab.json")
"""Files of a folder that tell its vocabulary."""

FIXED = {"CharLevelTokenizer": 512}
"""Entries of tokenizers that have no file."""

TIKTOKEN = {"gpt2": 50257, "r50k_base": 50257, "p50k_base": 50281, "cl100k_base": 100277, "o200k_base": 200019}
"""Entries of tiktoken's encodings, which `vocab_file` names."""


@dataclass(frozen=True)
class Vocabulary:
    """size: rows, before padding; source: where the number is from, in words; is_assumed: whether it may well be another."""

    size: int
    source: str
    is_assumed: bool = False


def find_vocabulary(args: NeoXArgs, *, given: int | None = None) -> Vocabulary:
    """The vocabulary of a configuration's model. given: entries of the tokenizer that the user says, which win over what its files say.

    Raises ConfigError when the tokenizer is known to have more entries than the config's vocab_size.
    """
    tokenizer = _of_tokenizer(args, given)
    if args.vocab_size is None:
        return tokenizer
    known = 0 if tokenizer.is_assumed else tokenizer.size
    return Vocabulary(model_vocab_size(args, known), "vocab_size of the config")


def _of_tokenizer(args: NeoXArgs, given: int | None) -> Vocabulary:
    if given is not None:
        return Vocabulary(given, "given")
    if args.padded_vocab_size is not None and args.vocab_size is None:
        return Vocabulary(args.padded_vocab_size, "padded_vocab_size of the config")
    if args.tokenizer_type in FIXED:
        return Vocabulary(FIXED[args.tokenizer_type], args.tokenizer_type)
    if args.tokenizer_type == "TiktokenTokenizer" and args.vocab_file in TIKTOKEN:
        return Vocabulary(TIKTOKEN[args.vocab_file], f"tiktoken's {args.vocab_file}")
    size = _entries(Path(args.vocab_file), args.tokenizer_type) if args.vocab_file else None
    if size is not None:
        return Vocabulary(size, f"counted in {args.vocab_file}")
    size, whose = ASSUMED[args.tokenizer_type]
    why = f"{args.vocab_file} cannot be read here" if args.vocab_file else "there is no vocab_file"
    return Vocabulary(size, f"assumed, {whose}: {why}", is_assumed=True)


def _entries(path: Path, tokenizer_type: str) -> int | None:
    """Entries of a tokenizer.json or a vocab.json, a folder that holds one, a SentencePiece model or a .tiktoken file; None when it is
    none of these."""
    file = path
    if path.is_dir():
        file = next((path / name for name in FOLDER if (path / name).is_file()), path)
    if tokenizer_type == "TiktokenTokenizer":
        return _tiktoken_entries(file)
    count: Callable[[bytes], int] = _sentencepiece_entries if file.suffix == ".model" else _json_entries
    try:
        content = file.read_bytes()
        entries = count(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    adds_padding = tokenizer_type == "HFGPT2Tokenizer" and b'"<|padding|>"' not in content
    return entries + adds_padding if entries else None


def _json_entries(content: bytes) -> int:
    """The highest id + 1 of a tokenizer.json (added tokens included) or of a vocab.json, as `HFTokenizer` counts."""
    document = json.loads(content)
    if "model" not in document or not isinstance(document["model"], dict):
        return max(map(int, document.values())) + 1
    vocabulary = document["model"]["vocab"]
    ids = [len(vocabulary) - 1] if isinstance(vocabulary, list) else list(map(int, vocabulary.values()))
    added = [int(token["id"]) for token in document.get("added_tokens") or ()]
    return max([*ids, *added], default=-1) + 1


def _tiktoken_entries(file: Path) -> int | None:
    """The highest id + 1, special tokens included."""
    try:
        tokens = read_tiktoken_file(file)
    except DataError:
        return None
    return max(*tokens.ranks.values(), *tokens.encoding.special_tokens.values()) + 1


def _sentencepiece_entries(content: bytes) -> int:
    """Pieces of a SentencePiece model: how often field 1 occurs in the protocol buffer, whose other fields are skipped."""
    position, pieces = 0, 0
    while position < len(content):
        key, position = _varint(content, position)
        field, kind = key >> 3, key & 7
        if kind == 2:
            length, position = _varint(content, position)
            position += length
        elif kind == 0:
            _, position = _varint(content, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("not a protocol buffer")
        pieces += field == 1 and kind == 2
    if position != len(content):
        raise ValueError("cut off")
    return pieces


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """The number of variable length that starts at `position`, and where it ends."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
