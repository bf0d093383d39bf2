"""What a faster engine has to know of a `tokenizer.json`, and the conditions under which none may serve it.

Everything in the file is looked at: what this module does not know is a reason to refuse, never ignored. Known are byte-level
byte-pair encodings in the manner of GPT-2, GPT-NeoX-20B, Llama 3 and Qwen: at most NFC before, one pattern that cuts the text into
pieces, merges that `merges` proves, tokens added to the vocabulary, and tokens put before and after a text.
"""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from megatron.tokenizer.fast.added import AddedTokens, read_added_tokens
from megatron.tokenizer.fast.merges import Unfit, prove_merges
from megatron.tokenizer.fast.patterns import GPT2


@dataclass(frozen=True)
class BytePairs:
    """A byte-level byte-pair encoding. Engines get texts that are in NFC if `nfc` and hold no added token."""

    pattern: str
    """Cuts a text into pieces, which no merge crosses."""
    byte_ids: dict[bytes, int]
    """The 256 single bytes."""
    parts: dict[bytes, tuple[bytes, bytes]]
    """The pair that is merged into each longer token, in the order of ids."""
    token_ids: dict[bytes, int]
    """The id of each token in `parts`."""
    whole: dict[bytes, int]
    """Tokens that only a piece of exactly their bytes becomes."""
    nfc: bool
    added: AddedTokens
    before: tuple[int, ...]
    """Put before the ids of every text."""
    after: tuple[int, ...]

    @property
    def ids(self) -> dict[bytes, int]:
        """Every token that a text without added tokens can give."""
        return {**self.byte_ids, **self.token_ids, **self.whole}


def read_byte_pairs(definition: str) -> BytePairs:
    """Read the text of a tokenizer.json as `tokenizers` writes it. Raises Unfit with the reason when no faster engine may serve it."""
    file = json.loads(definition)
    _only(file, {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                 "decoder", "model"}, "the file")  # fmt: skip
    for key in ("truncation", "padding"):
        if file[key] is not None:
            raise Unfit(f"it has {key}")
    nfc = _reads_nfc(file["normalizer"])
    pattern = _pattern(file["pre_tokenizer"])
    before, after = _template(file["post_processor"])
    added = read_added_tokens(file["added_tokens"], nfc=nfc)
    model = file["model"]
    _check_model(model)
    tokens = _read_tokens(model["vocab"])
    ids = {token: model["vocab"][text] for text, token in tokens.items()}
    byte_ids = {bytes((byte,)): ids[bytes((byte,))] for byte in range(256) if bytes((byte,)) in ids}
    if len(byte_ids) < 256:
        raise Unfit(f"{256 - len(byte_ids)} of the 256 bytes have no token")
    merges = [(_known(first, tokens), _known(second, tokens)) for first, second in model["merges"]]
    parts = prove_merges(ids, merges).parts
    token_ids = {token: ids[token] for token in parts}
    others = {token: number for token, number in ids.items() if token not in parts and len(token) > 1}
    whole = others if model["ignore_merges"] else {}
    return BytePairs(pattern, byte_ids, parts, token_ids, whole, nfc, added, before, after)


def byte_characters() -> str:
    """The characters that a byte-level vocabulary writes for the bytes 0 to 255 (source: GPT-2's encoder)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


_CHARACTERS = byte_characters()
_TO_BYTE = {ord(character): byte for byte, character in enumerate(_CHARACTERS)}


def write_bytes(token: bytes) -> str:
    """A token as a byte-level vocabulary writes it."""
    return codecs.charmap_decode(token, "strict", _CHARACTERS)[0]


def _read_tokens(vocabulary: Iterable[str]) -> dict[str, bytes]:
    """The tokens that are written in bytes; others no text can give, except as added tokens."""
    tokens = {text: codecs.charmap_encode(text, "ignore", _TO_BYTE)[0] for text in vocabulary}
    return {text: token for text, token in tokens.items() if len(token) == len(text) > 0}


def _known(text: str, tokens: dict[str, bytes]) -> bytes:
    if text not in tokens:
        raise Unfit(f'its merges have "{text}", which is no token written in bytes')
    return tokens[text]


def _check_model(model: dict[str, Any]) -> None:
    if model["type"] != "BPE":
        raise Unfit(f"its model is {model['type']}, not BPE")
    _only(model, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                  "byte_fallback", "ignore_merges", "vocab", "merges"}, "its model")  # fmt: skip
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model[key]:
            raise Unfit(f"its model has {key}")


def _reads_nfc(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return False
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    unknown = [step["type"] for step in steps if step["type"] != "NFC"]
    if unknown:
        raise Unfit(f"its normalizer is {unknown[0]}")
    return bool(steps)


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str:
    """The pattern of `ByteLevel` alone, or of a `Split` followed by a `ByteLevel` that does not cut."""
    if pre_tokenizer is None:
        raise Unfit("it has no pre-tokenizer")
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [step["type"] for step in steps]
    if kinds not in (["ByteLevel"], ["Split", "ByteLevel"]):
        raise Unfit(f"its pre-tokenizer is {' + '.join(kinds) or 'empty'}")
    byte_level = steps[-1]
    _only(byte_level, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, "its pre-tokenizer")
    if byte_level["add_prefix_space"]:
        raise Unfit("it puts a space before every text")
    if len(steps) == 1 and byte_level["use_regex"]:
        return GPT2
    split = steps[0]
    if len(steps) == 1 or byte_level["use_regex"]:
        raise Unfit("its pre-tokenizer does not cut exactly once")
    _only(split, {"type", "pattern", "behavior", "invert"}, "its pre-tokenizer")
    if split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        raise Unfit("its pre-tokenizer does not cut into the matches of a pattern")
    pattern: str = split["pattern"]["Regex"]
    return pattern


def _template(processor: dict[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that are put before and after a text."""
    steps = [] if processor is None else [processor]
    if processor is not None and processor["type"] == "Sequence":
        steps = processor["processors"]
    templates = [step for step in steps if step["type"] != "ByteLevel"]
    if not templates:
        return (), ()
    if len(templates) > 1 or templates[0]["type"] != "TemplateProcessing":
        raise Unfit(f"its post-processor is {' + '.join(step['type'] for step in steps)}")
    template = templates[0]
    places = template["single"]
    texts = [i for i, place in enumerate(places) if "Sequence" in place]
    if len(texts) != 1 or places[texts[0]]["Sequence"]["id"] != "A":
        raise Unfit("its post-processor repeats the text")
    return _special_ids(places[: texts[0]], template), _special_ids(places[texts[0] + 1 :], template)


def _special_ids(places: list[dict[str, Any]], template: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        number for place in places for number in template["special_tokens"][place["SpecialToken"]["id"]]["ids"]
    )


def _only(section: dict[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(section.keys() - known)
    if unknown:
        raise Unfit(f'{what} has "{unknown[0]}"')


def is_nfc(text: str) -> bool:
    """Whether NFC leaves a text as it is."""
    return unicodedata.is_normalized("NFC", text)
