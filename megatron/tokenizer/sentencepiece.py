"""SPMTokenizer: a SentencePiece model, the file usually called `tokenizer.model`.

The ids are exactly the library's, without the beginning and end of sequence it could add, as in GPT-NeoX. One deviation: there
`<|endoftext|>` ends documents whether the model has it or not, and becomes the unknown token where it has not, as in Llama's; here the
model's end of sequence takes its place then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import sentencepiece

from megatron.atomic import atomic_file
from megatron.errors import DataError
from megatron.tokenizer.base import Tokenizer, TokenizerArguments
from megatron.tokenizer.end_of_document import find_end_of_document
from megatron.tokenizer.files import read_bytes, required_file

WHAT = "a SentencePiece model, such as tokenizer.model"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class SPMTokenizer(Tokenizer):
    """A tokenizer from the bytes of a SentencePiece model; `origin` is where they came from, for messages.

    What a model normalises away (many fold compatibility characters and runs of spaces) does not come back. eod_token: see
    `find_end_of_document`.
    """

    name = "SPMTokenizer"

    def __init__(self, model: bytes, *, origin: str, eod_token: str | None = None) -> None:
        self._model = model
        try:
            if not model:
                raise ValueError
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._vocab_size: int = self._processor.get_piece_size()
        except Exception:  # the library says nothing but where in its source it stopped
            raise DataError(
                f"the tokenizer {origin} is not a SentencePiece model that sentencepiece {sentencepiece.__version__} can read: "
                f"vocab_file must be {WHAT}."
            ) from None
        eos = self._processor.eos_id()
        self._eod = find_end_of_document(
            self._id_of,
            eod_token=eod_token,
            eos_token=self._processor.id_to_piece(eos) if eos >= 0 else None,
            special_tokens=map(
                self._processor.id_to_piece, filter(self._processor.is_control, range(self._vocab_size))
            ),
            origin=origin,
        )

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> SPMTokenizer:
        """Read `args.vocab_file`."""
        file = required_file(args, "vocab_file", what=WHAT)
        return cls(read_bytes(Path(file), key="vocab_file"), origin=file, eod_token=args.eod_token)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eod(self) -> int:
        return self._eod

    @property
    def special_tokens(self) -> frozenset[int]:
        unknown = self._processor.is_unknown
        return frozenset(number for number in range(self._vocab_size) if unknown(number) or not self._is_text(number))

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text)
        return ids

    def detokenize(self, ids: Sequence[int]) -> str:
        # The library decodes control tokens to nothing and fails at ids that it does not have.
        runs = groupby(ids, key=self._is_text)
        return "".join(
            self._processor.decode(list(run)) if is_text else "".join(map(self._name_of, run)) for is_text, run in runs
        )

    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the model to `path`, whole or not at all; loading it gives the same fingerprint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(self._model)

    def _id_of(self, token: str) -> int | None:
        token_id: int = self._processor.piece_to_id(token)  # that of the unknown token for what it does not have
        return token_id if self._processor.id_to_piece(token_id) == token else None

    def _is_text(self, token_id: int) -> bool:
        return 0 <= token_id < self._vocab_size and not self._processor.is_control(token_id)

    def _name_of(self, token_id: int) -> str:
        name: str = self._processor.id_to_piece(token_id) if 0 <= token_id < self._vocab_size else REPLACEMENT
        return name
