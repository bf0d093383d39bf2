"""The characters of predicted tokens, whatever tokenizer made them and wherever samples cut the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from megatron.components import TOKENIZERS
from megatron.data.batch import DocumentRules, build_batch
from megatron.mpu.groups import single_process_groups
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.training.characters import CharacterCount, characters
from tests.unit.tokenizer.small import TEXTS, every_kind

KINDS = tuple(TOKENIZERS)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    kinds = every_kind(tmp_path_factory.mktemp("kinds"))
    return {name: build_tokenizer(settings) for name, settings in kinds.items()}


class WordTokenizer(CharLevelTokenizer):
    """Tokens 0 (end of document), 1 "ab", 2 " cd", 3 and 4 the halves of "é"."""

    PIECES = (b"<end>", b"ab", b" cd", b"\xc3", b"\xa9")

    def detokenize(self, ids: Sequence[int]) -> str:
        return b"".join(self.PIECES[i] for i in ids).decode("utf-8", errors="replace")


def count(stream: Sequence[int], mask: Sequence[int] | None = None, *, tokenizer: Tokenizer | None = None) -> int:
    """Of the labels stream[1:]."""
    counts = mask or [1] * (len(stream) - 1)
    return characters(tokenizer or WordTokenizer(), stream[:-1], stream[1:], counts)


def test_characters_are_those_of_the_text_that_the_labels_stand_for() -> None:
    assert count([1, 1, 2]) == len("ab cd")
    assert count([1, 3, 4, 1]) == len("éab")


def test_an_end_of_document_is_one_character_whatever_its_name() -> None:
    assert count([1, 1, 0, 2, 0, 0]) == len("ab") + 1 + len(" cd") + 2


def test_labels_that_do_not_count_are_left_out() -> None:
    assert count([1, 1, 2, 0, 1, 2], [1, 0, 0, 1, 0]) == len("ab") + len("ab")
    assert count([1, 1, 2], [0, 0]) == 0


def test_a_character_cut_apart_counts_where_it_begins() -> None:
    assert count([1, 1, 3]) == len("ab") + 1
    assert count([3, 4, 1]) == len("ab")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("length", [8, 21, 1000])
def test_samples_of_any_length_have_the_characters_of_their_documents(
    name: str, length: int, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer, documents = tokenizers[name], TEXTS[:3]
    stream = [tokenizer.eod]
    for text in documents:
        stream += [*tokenizer.tokenize(text), tokenizer.eod]
    samples = [stream[begin : begin + length + 1] for begin in range(0, len(stream) - 1, length)]
    assert sum(count(sample, tokenizer=tokenizer) for sample in samples) == sum(map(len, documents)) + len(documents)


def test_a_count_follows_batches_and_knows_what_their_masks_leave_out() -> None:
    text = "first line\nsecond"
    ids = torch.tensor([list(text.encode()), [0, *[65] * (len(text) - 1)]])
    batch = build_batch(ids, DocumentRules(0, mask_loss=True))
    counter = CharacterCount(CharLevelTokenizer(), single_process_groups())
    batches: Iterator[list[object]] = iter([[batch, batch], [batch]])
    assert [len(each or []) for each in counter.follow(batches)] == [2, 1]  # type: ignore[arg-type]
    assert counter.total() == 3 * (len(text) - 1 + len(text) - 2)


def test_a_stage_that_reads_nothing_counts_nothing() -> None:
    counter = CharacterCount(CharLevelTokenizer(), single_process_groups())
    assert list(counter.follow(iter([None, None]))) == [None, None]
    assert counter.total() == 0
