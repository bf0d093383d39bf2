"""A `.tiktoken` file: one line a token, its bytes in base64 and its rank. It says neither the pattern nor the special tokens.

The published encodings are known by their content. For another, the rest lies beside the file, under its name with `.json`:

    {"pat_str": "\\\\p{L}+|...", "special_tokens": {"<|endoftext|>": 100257}}
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from megatron.errors import DataError
from megatron.tokenizer.files import read_bytes, read_json_object

WHAT = "the name of an encoding, such as cl100k_base, or a .tiktoken file"
_COMPANION = 'the companion of a .tiktoken file, with "pat_str" and "special_tokens"'


@dataclass(frozen=True)
class Encoding:
    """What tiktoken builds an encoding from: how a text is cut, and special tokens by their text."""

    name: str
    pattern: str
    special_tokens: dict[str, int]


@dataclass(frozen=True)
class TiktokenFile:
    """A file with what belongs to it. ranks: id by the bytes of a token; digest: of all of it."""

    ranks: dict[bytes, int]
    encoding: Encoding
    digest: str


_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K_PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
_O200K_PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)

PUBLISHED = {
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": Encoding(
        "r50k_base", _GPT2_PATTERN, {"<|endoftext|>": 50256}
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": Encoding(
        "p50k_base", _GPT2_PATTERN, {"<|endoftext|>": 50256}
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": Encoding(
        "cl100k_base",
        _CL100K_PATTERN,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": Encoding(
        "o200k_base", _O200K_PATTERN, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
    ),
}
"""The published encodings by the SHA-256 of their files (source: tiktoken)."""


def read_tiktoken_file(path: Path) -> TiktokenFile:
    """Read a `.tiktoken` file and its companion. Raises DataError when one is missing, malformed or does not fit the other."""
    content = read_bytes(path, key="vocab_file")
    digest = hashlib.sha256(content).hexdigest()
    ranks = _read_ranks(content, path)
    encoding = PUBLISHED.get(digest) or _read_companion(path, ranks)
    whole = hashlib.sha256(f"{digest} {encoding.pattern} {sorted(encoding.special_tokens.items())}".encode())
    return TiktokenFile(ranks, encoding, whole.hexdigest())


def _read_ranks(content: bytes, path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise DataError(
                f"{path}:{number} is not a token in base64 and its rank: vocab_file must be {WHAT}."
            ) from None
    missing = [byte for byte in range(256) if bytes((byte,)) not in ranks]
    if missing:
        raise DataError(f"{path} is not whole: {len(missing)} of the 256 bytes have no token in it. Check vocab_file.")
    if len(set(ranks.values())) < len(ranks) or min(ranks.values()) < 0:
        raise DataError(f"{path} gives one id to several tokens, or one below 0. Check vocab_file.")
    return ranks


def _read_companion(path: Path, ranks: dict[bytes, int]) -> Encoding:
    companion = path.with_suffix(".json")
    if not companion.is_file():
        known = ", ".join(encoding.name for encoding in PUBLISHED.values())
        raise DataError(
            f"{path} is none of the published encodings ({known}): it is damaged, or its pattern and special tokens are "
            f'missing. Give them in {companion}: {{"pat_str": "...", "special_tokens": {{"<|endoftext|>": 50256}}}}'
        )
    content = read_json_object(companion, key="vocab_file", what=_COMPANION)
    pattern, special = content.get("pat_str"), content.get("special_tokens")
    if (
        not isinstance(pattern, str)
        or not isinstance(special, dict)
        or not all(type(token_id) is int and token_id >= 0 for token_id in special.values())
    ):
        raise DataError(f"{companion} is not {_COMPANION}, a pattern and a map from tokens to ids.")
    taken = set(ranks.values()) & set(special.values())
    if taken or len(set(special.values())) < len(special):
        raise DataError(f"{companion} gives special tokens ids that other tokens have: {sorted(taken) or special}.")
    return Encoding(path.stem, pattern, special)
