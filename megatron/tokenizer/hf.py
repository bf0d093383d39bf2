"""HFTokenizer: a tokenizer in the `tokenizer.json` format of the Hugging Face `tokenizers` library.

The ids are exactly that library's, special tokens its post-processor adds included, as in GPT-NeoX. The file may lie among the others
of a model of the Hugging Face hub: `tokenizer_config.json` and `special_tokens_map.json` beside it then name the end of sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from megatron.atomic import atomic_file
from megatron.errors import DataError
from megatron.tokenizer.base import Tokenizer, TokenizerArguments
from megatron.tokenizer.end_of_document import find_end_of_document
from megatron.tokenizer.files import read_json_object, read_text, required_file

WHAT = "a tokenizer.json or a directory that holds one"
OTHERS = {"vocab.json": "HFGPT2Tokenizer", "tokenizer.model": "SPMTokenizer"}
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json")


class HFTokenizer(Tokenizer):
    """A tokenizer from the text of a `tokenizer.json`; `origin` is where the text came from, for messages.

    eod_token, eos_token: see `find_end_of_document`.
    """

    name = "HFTokenizer"

    def __init__(self, text: str, *, origin: str, eod_token: str | None = None, eos_token: str | None = None) -> None:
        self._text = text
        self._tokenizer = read_engine(text, origin=origin)
        # An id may be beyond the number of entries, in a vocabulary with holes.
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self._vocab_size = max(vocabulary.values(), default=-1) + 1
        self._eod = find_end_of_document(
            vocabulary.get,
            eod_token=eod_token,
            eos_token=eos_token,
            special_tokens=[token.content for token in self._tokenizer.get_added_tokens_decoder().values()],
            origin=origin,
        )

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> HFTokenizer:
        """Read `args.vocab_file`: a tokenizer.json, or a directory that holds one."""
        return cls.from_file(required_file(args, "vocab_file", what=WHAT), eod_token=args.eod_token)

    @classmethod
    def from_file(cls, path: str | Path, *, eod_token: str | None = None) -> HFTokenizer:
        """Read a tokenizer.json, or the one in a directory. Raises DataError when it is missing or malformed."""
        file = Path(path)
        if file.is_dir():
            check_directory(file)
            file = file / "tokenizer.json"
        text = read_text(file, key="vocab_file", what=WHAT)
        return cls(text, origin=str(file), eod_token=eod_token, eos_token=end_of_sequence(file))

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eod(self) -> int:
        return self._eod

    @property
    def special_tokens(self) -> frozenset[int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset([self._eod, *(number for number, token in added.items() if token.special)])

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def tokenize_plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def detokenize(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def definition(self) -> str:
        """The text of a tokenizer.json of this tokenizer, in the form in which the installed `tokenizers` writes it."""
        text: str = self._tokenizer.to_str()
        return text

    def fingerprint(self) -> str:
        return hashlib.sha256(self._text.encode("utf-8")).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json to `path`, whole or not at all; loading it gives the same fingerprint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(self._text.encode())


def check_directory(directory: Path) -> None:
    """A directory holds a tokenizer.json. Raises DataError with the types that read what lies there instead."""
    if not (directory / "tokenizer.json").is_file():
        readable = [(directory / name, kind) for name, kind in OTHERS.items() if (directory / name).is_file()]
        ways = "".join(f' {file} is read by tokenizer_type "{kind}".' for file, kind in readable)
        raise DataError(f"the tokenizer {directory} holds no tokenizer.json: check vocab_file.{ways}")


def read_engine(text: str, *, origin: str) -> Any:
    """The `tokenizers.Tokenizer` in the text of a tokenizer.json. Raises DataError when it is none."""
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"{origin} is not a tokenizer.json that tokenizers {tokenizers.__version__} can read ({error}): "
            "give the tokenizer.json of a Hugging Face model, or one made by tools/datasets/train_tokenizer.py."
        ) from None


def end_of_sequence(file: Path) -> str | None:
    """The `eos_token` that the companions of a tokenizer.json name; None without them, or for a file of another name.

    A token is written as its text, or as an object that holds it. Raises DataError for a companion that is no JSON object.
    """
    if file.name != "tokenizer.json":
        return None
    for companion in map(file.with_name, COMPANIONS):
        if companion.is_file():
            token = read_json_object(companion, key="vocab_file", what="the directory of a tokenizer").get("eos_token")
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                return text
    return None
