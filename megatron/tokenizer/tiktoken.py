"""TiktokenTokenizer: the encodings of OpenAI's tiktoken, by name or from a `.tiktoken` file.

The ids are exactly the library's, special tokens found in text. (GPT-NeoX finds them in batches of texts and fails at them in single
ones.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tiktoken

from megatron.errors import DataError
from megatron.registry import did_you_mean
from megatron.tokenizer.base import Tokenizer, TokenizerArguments
from megatron.tokenizer.end_of_document import find_end_of_document
from megatron.tokenizer.files import required_file
from megatron.tokenizer.tiktoken_file import WHAT, read_tiktoken_file

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class TiktokenTokenizer(Tokenizer):
    """A tokenizer around an encoding; digest: of everything the encoding is made of. eod_token: see `find_end_of_document`."""

    name = "TiktokenTokenizer"

    def __init__(self, encoding: tiktoken.Encoding, *, digest: str, eod_token: str | None = None) -> None:
        self._encoding = encoding
        self._digest = digest
        special = {token: encoding.encode_single_token(token) for token in encoding.special_tokens_set}
        self._special = frozenset(special.values())
        self._eod = find_end_of_document(special.get, eod_token=eod_token, special_tokens=special, origin=encoding.name)

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> TiktokenTokenizer:
        """Read the file `args.vocab_file`, or the encoding of that name: from tiktoken's cache, or over the network."""
        name = required_file(args, "vocab_file", what=WHAT)
        names = tiktoken.list_encoding_names()
        if not Path(name).exists() and name not in names:
            raise DataError(
                f'"vocab_file" is "{name}", which is neither a file here nor an encoding of tiktoken{did_you_mean(name, names)}: '
                f"give a .tiktoken file, or one of {', '.join(names)}."
            )
        encoding, digest = _from_file(Path(name)) if Path(name).exists() else _from_name(name)
        return cls(encoding, digest=digest, eod_token=args.eod_token)

    @property
    def vocab_size(self) -> int:
        size: int = self._encoding.n_vocab
        return size

    @property
    def eod(self) -> int:
        return self._eod

    @property
    def special_tokens(self) -> frozenset[int]:
        return self._special

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._encoding.encode(text, allowed_special="all")
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._bytes_of, ids)).decode("utf-8", errors="replace")

    def fingerprint(self) -> str:
        return self._digest

    def _bytes_of(self, token_id: int) -> bytes:
        try:
            data: bytes = self._encoding.decode_single_token_bytes(token_id)
        except KeyError:  # encodings have holes
            return REPLACEMENT
        return data


def _from_file(path: Path) -> tuple[tiktoken.Encoding, str]:
    file = read_tiktoken_file(path)
    try:
        encoding = tiktoken.Encoding(
            name=str(path),
            pat_str=file.encoding.pattern,
            mergeable_ranks=file.ranks,
            special_tokens=file.encoding.special_tokens,
        )
    except ValueError as error:
        raise DataError(f"tiktoken cannot use {path} with its pattern and special tokens ({error}).") from None
    return encoding, file.digest


def _from_name(name: str) -> tuple[tiktoken.Encoding, str]:
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # network, cache and damaged downloads have no common base
        raise DataError(
            f'the encoding "{name}" is not in tiktoken\'s cache and could not be downloaded ({type(error).__name__}). '
            f"Where there is no network, copy a filled cache and set the environment variable TIKTOKEN_CACHE_DIR to it, or "
            f'set "vocab_file" to the file {name}.tiktoken.'
        ) from None
    return encoding, hashlib.sha256(f"tiktoken {name}".encode()).hexdigest()
