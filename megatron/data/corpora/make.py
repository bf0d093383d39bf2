"""From a corpus that is here to its tokenizer and its indexed dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from megatron.data.corpora.base import Corpus
from megatron.data.encoding.files import encode_files
from megatron.data.encoding.manifest import describe_recipe
from megatron.data.encoding.progress import build_progress
from megatron.data.encoding.shard import OnError
from megatron.data.encoding.texts import EncodedDataset, encode_texts
from megatron.data.encoding.work import WorkDirectory
from megatron.data.encoding.worker import Encoder, EncodeRecipe
from megatron.data.inputs.fingerprint import fingerprint
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe

# A tokenizer is trained on so much from the beginning: more changes its merges little.
TRAINING_CHARACTERS = 200_000_000


def train_on(corpus: Corpus, texts: Sequence[str] | None, *, vocab_size: int, console: Console) -> HFTokenizer:
    """A tokenizer for the corpus; `texts`: its documents where they are in memory."""
    number = "" if texts is None else f"{len(texts):,} documents of "
    _tell(console, f"training a tokenizer of {vocab_size:,} tokens on {number}{corpus.name}")
    documents = corpus.documents() if texts is None else texts
    return train_bpe(_beginning(documents, TRAINING_CHARACTERS), vocab_size=vocab_size)


def encode_corpus(
    corpus: Corpus,
    texts: Sequence[str] | None,
    tokenizer: TokenizerSettings,
    *,
    workers: int,
    console: Console,
    on_error: OnError,
) -> tuple[EncodedDataset, int]:
    """(the dataset of the corpus in its directory, bytes of its text). `texts`: its documents where they are in memory.

    Files are read by the workers, and what an earlier call has encoded of them is not encoded again.
    """
    _tell(console, f"tokenising {corpus.name}")
    recipe = EncodeRecipe(tokenizer, keys=(corpus.key,), append_eod=True)
    output_prefix = corpus.directory / corpus.name
    files = corpus.files()
    if files is None:
        progress = build_progress(console, total=None if texts is None else len(texts))
        dataset = encode_texts(
            corpus.documents() if texts is None else texts,
            recipe,
            origin=f"the corpus {corpus.name}",
            output_prefix=output_prefix,
            workers=workers,
            progress=progress,
        )
        return dataset, progress.counts.text_bytes
    encoded = encode_files(
        files,
        recipe,
        output_prefix=output_prefix,
        workers=workers,
        progress=build_progress(console, total=sum(path.stat().st_size for path in files)),
        on_error=on_error,
        resume=_was_begun(output_prefix, recipe, files),
    )
    if encoded.counts.bad:
        _tell(console, f"left out {encoded.counts.bad:,} bad documents, the first: {encoded.bad[0]}")
    return encoded.datasets[0], encoded.counts.text_bytes


def _was_begun(output_prefix: Path, recipe: EncodeRecipe, files: Sequence[Path]) -> bool:
    """Whether an earlier call was cut off while it encoded the same files in the same way."""
    manifest = WorkDirectory(output_prefix).manifest()
    if manifest is None:
        return False
    inputs = tuple(fingerprint(path) for path in files)
    return manifest.recipe == describe_recipe(Encoder(recipe)) and manifest.inputs == inputs


def _beginning(texts: Iterable[str], characters: int) -> Iterator[str]:
    """The first texts, until they have so many characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def _tell(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)
