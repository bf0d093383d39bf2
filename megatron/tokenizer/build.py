"""From the configuration's tokenizer keys to a tokenizer."""

from __future__ import annotations

from megatron.components import TOKENIZERS
from megatron.tokenizer.base import Tokenizer, TokenizerArguments


def build_tokenizer(args: TokenizerArguments) -> Tokenizer:
    """The tokenizer named by `args.tokenizer_type`, read from `args.vocab_file` and `args.merge_file`.

    Raises NeoXError for an unknown type, MissingRequirement for a missing package, DataError for missing or malformed files.
    """
    kind: type[Tokenizer] = TOKENIZERS.load(args.tokenizer_type)
    return kind.from_arguments(args)
