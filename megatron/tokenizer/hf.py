"""HFTokenizer: a tokenizer in the `tokenizer.json` format of the Hugging Face `tokenizers` library.

The ids are exactly that library's, special tokens its post-processor adds included, as in GPT-NeoX.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from megatron.atomic import atomic_file
from megatron.errors import DataError
from megatron.tokenizer.base import Tokenizer, TokenizerArguments

# The first of these that the vocabulary has ends a document. GPT-NeoX knows the first one only.
END_OF_DOCUMENT = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "<|im_end|>", "<|eot_id|>", "<EOT>")


class HFTokenizer(Tokenizer):
    """A tokenizer from the text of a `tokenizer.json`; `origin` is where the text came from, for messages."""

    name = "HFTokenizer"

    def __init__(self, text: str, *, origin: str) -> None:
        self._text = text
        self._origin = origin
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise DataError(
                f"{origin} is not a tokenizer.json that tokenizers {tokenizers.__version__} can read ({error}): "
                "give the tokenizer.json of a Hugging Face model, or one made by tools/datasets/train_tokenizer.py."
            ) from None
        # An id may be beyond the number of entries, in a vocabulary with holes.
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self._vocab_size = max(vocabulary.values(), default=-1) + 1
        self._eod = self._find_end_of_document()

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> HFTokenizer:
        """Read `args.vocab_file`: a tokenizer.json, or a directory that holds one."""
        if args.vocab_file is None:
            raise DataError(
                f'tokenizer_type "{cls.name}" needs "vocab_file": a tokenizer.json or a directory that holds one.'
            )
        return cls.from_file(args.vocab_file)

    @classmethod
    def from_file(cls, path: str | Path) -> HFTokenizer:
        """Read a tokenizer.json, or the one in a directory. Raises DataError when it is missing or malformed."""
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"the tokenizer {file} cannot be read ({error.strerror}): check vocab_file.") from None
        except UnicodeDecodeError:
            raise DataError(f"the tokenizer {file} is not a text file: vocab_file must be a tokenizer.json.") from None
        return cls(text, origin=str(file))

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eod(self) -> int:
        return self._eod

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def detokenize(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def fingerprint(self) -> str:
        return hashlib.sha256(self._text.encode("utf-8")).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json to `path`, whole or not at all; loading it gives the same fingerprint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(self._text.encode())

    def _find_end_of_document(self) -> int:
        for token in END_OF_DOCUMENT:
            token_id: int | None = self._tokenizer.token_to_id(token)
            if token_id is not None:
                return token_id
        raise DataError(
            f"the tokenizer {self._origin} has no token that ends a document: none of {', '.join(END_OF_DOCUMENT)} "
            "is in its vocabulary. Add one of them to its added_tokens."
        )
