"""CharLevelTokenizer: one token a byte of the text's UTF-8, no files needed.

The ids are GPT-NeoX's, so its datasets and checkpoints fit: a vocabulary of 512, of which 0-255 are the bytes. As there, 0 is both
the NUL byte and the end of a document. One deviation: GPT-NeoX turns each id into the character of that number and replaces
everything below 32 by a space, which loses line ends and every character beyond ASCII; ours decodes the bytes as UTF-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from megatron.tokenizer.base import Tokenizer, TokenizerArguments

VOCAB_SIZE = 512
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


class CharLevelTokenizer(Tokenizer):
    """Bytes as tokens. Ids from 256 on stand for nothing; a model may still produce them, and they are shown as U+FFFD."""

    name = "CharLevelTokenizer"

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> CharLevelTokenizer:
        """Needs no files: `args` is ignored."""
        return cls()

    @property
    def vocab_size(self) -> int:
        return VOCAB_SIZE

    @property
    def eod(self) -> int:
        return 0

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def detokenize(self, ids: Sequence[int]) -> str:
        data = b"".join(bytes((i,)) if i < 256 else REPLACEMENT for i in ids)
        return data.decode("utf-8", errors="replace")

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name} {VOCAB_SIZE} utf-8".encode()).hexdigest()
