"""Which token ends a document: found by a fixed rule, or refused; never guessed, as every document of a dataset ends with it.

1. the token that the configuration names (`eod_token`);
2. `<|endoftext|>`, GPT-NeoX's only choice, or `<|end_of_text|>`: names that say what they are. A tokenizer of a chat model has them
   beside the token that ends a turn, which it calls its end of sequence;
3. the end of sequence that the tokenizer's own files name (`eos_token` in tokenizer_config.json, the eos piece of SentencePiece);
4. the one token of the vocabulary that usually ends a sequence, if there is only one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from megatron.errors import DataError

BY_NAME = ("<|endoftext|>", "<|end_of_text|>")
USUAL = ("</s>", "<eos>", "<|eos|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<EOT>")
SHOWN = 10  # special tokens in a message, of which a vocabulary may have hundreds


def find_end_of_document(
    token_to_id: Callable[[str], int | None],
    *,
    eod_token: str | None,
    eos_token: str | None = None,
    special_tokens: Iterable[str] = (),
    origin: str,
) -> int:
    """The id of the token that ends a document. eos_token: the end of sequence that the tokenizer's files name.

    special_tokens, origin: those of the tokenizer, and its file, for messages. Raises DataError when the rule finds no token, or none
    of the name that is given.
    """
    present = [token for token in (*BY_NAME, *USUAL) if token_to_id(token) is not None]
    choice = _choice(present or sorted(special_tokens))
    if eod_token is not None:
        found, why = eod_token, f'"eod_token" is "{eod_token}"'
    elif present and present[0] in BY_NAME:
        found, why = present[0], ""
    elif eos_token is not None:
        found, why = eos_token, f'its files call "{eos_token}" the end of a sequence'
    elif len(present) == 1:
        found, why = present[0], ""
    elif present:
        raise DataError(
            f'the tokenizer {origin} has several tokens that may end a document: set "eod_token" to {choice}.'
        )
    else:
        raise DataError(
            f"the tokenizer {origin} has no token that is known to end a document: none of "
            f'{", ".join((*BY_NAME, *USUAL))} is in its vocabulary. Set "eod_token" to {choice}.'
        )
    token_id = token_to_id(found)
    if token_id is None:
        raise DataError(
            f'the vocabulary of the tokenizer {origin} has no such token, but {why}: set "eod_token" to {choice}.'
        )
    return token_id


def _choice(candidates: Sequence[str]) -> str:
    more = "" if len(candidates) <= SHOWN else ", ..."
    return f"one of {', '.join(candidates[:SHOWN])}{more}" if candidates else "the token that does"
