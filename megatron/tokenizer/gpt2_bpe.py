"""GPT2BPETokenizer: GPT-2's byte-level BPE from its vocab.json and merges.txt.

As in GPT-NeoX special tokens are not looked for: a document in which `<|endoftext|>` is written does not end there.
"""

from __future__ import annotations

from pathlib import Path

from megatron.tokenizer.base import TokenizerArguments
from megatron.tokenizer.byte_level import MERGES, VOCABULARY, byte_level_bpe
from megatron.tokenizer.files import required_file
from megatron.tokenizer.hf import HFTokenizer


class GPT2BPETokenizer(HFTokenizer):
    """The tokenizer of a vocab.json and a merges.txt; `save` writes it as a tokenizer.json."""

    name = "GPT2BPETokenizer"

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> GPT2BPETokenizer:
        """Read `args.vocab_file` and `args.merge_file`."""
        vocab_file = required_file(args, "vocab_file", what=VOCABULARY)
        merge_file = required_file(args, "merge_file", what=MERGES)
        engine = byte_level_bpe(Path(vocab_file), Path(merge_file))
        return cls(engine.to_str(), origin=vocab_file, eod_token=args.eod_token)
