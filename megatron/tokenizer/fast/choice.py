"""Which engine serves a tokenizer: the first that is proven to give its ids."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from megatron.log import get_logger
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.fast.encoder import BatchEncoder, Blueprint, Engine, FastEncoder, TokenizerEncoder
from megatron.tokenizer.fast.file import read_byte_pairs
from megatron.tokenizer.fast.merges import Unfit
from megatron.tokenizer.hf import HFTokenizer

ENGINES = {
    "gigatoken": "megatron.tokenizer.fast.with_gigatoken:GigatokenEngine",
    "tiktoken": "megatron.tokenizer.fast.with_tiktoken:TiktokenEngine",
}
"""The fastest first; the name is that of the package."""
PROVEN = {"tokenizers": "0.23.3", "gigatoken": "0.10.0", "tiktoken": "0.14.0"}
"""The versions that were compared, and are pinned in requirements/."""
SAMPLE_CHARACTERS = 1 << 18

logger = get_logger(__name__)


def build_batch_encoder(
    tokenizer: Tokenizer, *, sample: Sequence[str] = (), engines: Iterable[str] = tuple(ENGINES)
) -> BatchEncoder:
    """The first of `engines` that is installed and proven to give the ids of `tokenizer`; the tokenizer itself when there is none.

    sample: texts of the user's, of which 262,144 characters or so, as many of each, are compared before an engine is trusted. That none
    serves, and why, is logged once.
    """
    if not isinstance(tokenizer, HFTokenizer):
        return TokenizerEncoder(tokenizer)
    reasons = []
    for name in engines:
        try:
            encoder = build_from(_prove(name, tokenizer), tokenizer)
            _check_sample(encoder, tokenizer, sample)
        except Unfit as reason:
            reasons.append(str(reason))
            continue
        return encoder
    if reasons:
        _tell("; ".join(reasons))
    return TokenizerEncoder(tokenizer)


def build_from(blueprint: Blueprint | None, tokenizer: Tokenizer) -> BatchEncoder:
    """The encoder of a blueprint that was made for `tokenizer`, in this process or another one; without one the tokenizer itself."""
    if blueprint is None:
        return TokenizerEncoder(tokenizer)
    return FastEncoder(_kind(blueprint.engine)(blueprint), blueprint, tokenizer)


def _prove(name: str, tokenizer: HFTokenizer) -> Blueprint:
    """All that can be proven without a text. Raises Unfit."""
    for package in ("tokenizers", name):
        _check_version(package)
    pairs = read_byte_pairs(tokenizer.definition())
    tables = _kind(name).tables_of(pairs)
    return Blueprint(name, tables, pairs.nfc, pairs.added, pairs.before, pairs.after)


def _kind(name: str) -> type[Engine]:
    module, _, kind = ENGINES[name].partition(":")
    try:
        engine: type[Engine] = getattr(importlib.import_module(module), kind)
        return engine
    except ImportError as error:
        raise Unfit(f"{name} cannot be imported ({error})") from None


def _check_version(package: str) -> None:
    try:
        installed = version(package)
    except PackageNotFoundError:
        raise Unfit(f"{package} is not installed") from None
    if installed != PROVEN[package]:
        raise Unfit(f"{package} is version {installed}, and {PROVEN[package]} is the one that was compared")


def _check_sample(encoder: BatchEncoder, tokenizer: HFTokenizer, sample: Sequence[str]) -> None:
    """Raises Unfit when the ids of a text of the sample differ."""
    share = SAMPLE_CHARACTERS // max(1, len(sample)) + 1
    parts = [text[:share] for text in sample]
    if [ids.tolist() for ids in encoder.encode_batch(parts)] != tokenizer.tokenize_batch(parts):
        raise Unfit(f"{encoder.engine} gave other ids for a text of the input")


@functools.cache
def _tell(reasons: str) -> None:
    """Once for each text."""
    logger.warning(
        "tokenising with tokenizers itself, as no faster engine can give its ids: %s. Engines for tokenizers like those of GPT-2, "
        "GPT-NeoX, Llama 3 and Qwen are in requirements/requirements-fast-tokenizers.txt.",
        reasons,
    )
