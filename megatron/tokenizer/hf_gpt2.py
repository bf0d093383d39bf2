"""HFGPT2Tokenizer: GPT-2's tokenizer as the Hugging Face hub has it, from files here or, by its name, from the hub.

As in GPT-NeoX it finds special tokens in text, and has one more than GPT-2: `<|padding|>`, which gets the next free id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.errors import DataError
from megatron.tokenizer.base import TokenizerArguments
from megatron.tokenizer.byte_level import byte_level_bpe
from megatron.tokenizer.files import read_text
from megatron.tokenizer.hf import HFTokenizer, end_of_sequence, read_engine

HUB_NAME = "gpt2"
END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
WHAT = "a directory with a tokenizer.json, or with a vocab.json and a merges.txt"


class HFGPT2Tokenizer(HFTokenizer):
    """A GPT-2 tokenizer with `<|endoftext|>` and `<|padding|>` as special tokens."""

    name = "HFGPT2Tokenizer"

    @classmethod
    def from_arguments(cls, args: TokenizerArguments) -> HFGPT2Tokenizer:
        """Read `args.vocab_file`, which is one of

        * a directory with a tokenizer.json, or with a vocab.json and a merges.txt;
        * a tokenizer.json; or a vocab.json, whose merges are in `args.merge_file`;
        * the name of a model of the Hugging Face hub ("gpt2" when nothing is given): from the hub's local cache, or over the network.
        """
        origin = args.vocab_file or HUB_NAME
        place, eos_token = Path(origin), None
        if place.is_file() and args.merge_file is not None:
            engine = _from_two_files(place, Path(args.merge_file), merge_key="merge_file")
        elif place.is_dir() and not (place / "tokenizer.json").is_file():
            engine = _from_two_files(place / "vocab.json", place / "merges.txt", merge_key="vocab_file")
        elif place.exists():
            file = place / "tokenizer.json" if place.is_dir() else place
            engine = read_engine(read_text(file, key="vocab_file", what=WHAT), origin=str(file))
            eos_token = end_of_sequence(file)
        else:
            engine = read_engine(read_text(_from_hub(origin), key="vocab_file", what=WHAT), origin=origin)
        if engine.token_to_id(PADDING) is None:
            engine.add_special_tokens([PADDING])
        return cls(engine.to_str(), origin=origin, eod_token=args.eod_token, eos_token=eos_token)


def _from_two_files(vocab_file: Path, merge_file: Path, *, merge_key: str) -> Any:
    engine = byte_level_bpe(vocab_file, merge_file, merge_key=merge_key)
    if engine.token_to_id(END_OF_TEXT) is not None:
        engine.add_special_tokens([END_OF_TEXT])
    return engine


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # imported late: it takes a while

    try:
        cached = try_to_load_from_cache(name, "tokenizer.json")
        return Path(cached if isinstance(cached, str) else hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # what the hub's client and its transport raise has no common base
        raise DataError(
            f'the tokenizer "{name}" is neither a file nor a directory here, and the Hugging Face hub gave none of that name '
            f"({type(error).__name__}). Where there is no network, download it elsewhere (hf download {name} --local-dir DIR) "
            f'and set "vocab_file" to the directory: {WHAT}.'
        ) from None
