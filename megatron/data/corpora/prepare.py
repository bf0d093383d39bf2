"""Make a corpus ready for training: its tokenizer, its indexed dataset, and a note of what they were made from.

    DATA_DIR/CORPUS/tokenizer.json                      trained here, unless another tokenizer is given
    DATA_DIR/CORPUS/CORPUS_text_document.bin, .idx      the dataset, each document ended by the end-of-document token
    DATA_DIR/CORPUS/CORPUS_text_document.sources.json   where its documents came from, see megatron/data/origins.py
    DATA_DIR/CORPUS/raw/                                downloaded files, if there are any
    DATA_DIR/CORPUS/prepared.json                       the note, written last

A second call compares the note with what is asked for and does nothing when they agree. The note is removed before anything is
replaced, so that files that do not belong together are never taken for ready, wherever an earlier call was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from megatron.data.corpora.base import Corpus
from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.data.corpora.make import TRAINING_CHARACTERS, encode_corpus, train_on
from megatron.data.corpora.note import Note, read_note, remove_note, sizes_of, write_note
from megatron.data.encoding.shard import OnError
from megatron.data.indexed_dataset import bin_path, idx_path
from megatron.errors import DataError
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import LONGEST_TOKEN, PIECES, SPECIAL_TOKENS

DEFAULT_VOCAB_SIZE = 4096
FORMAT = 2  # raised when the same corpus and tokenizer give other files than before


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus that is ready: `prefix` is its dataset's path without `.bin` or `.idx`, `tokenizer` what it was made with."""

    name: str
    prefix: Path
    tokenizer: TokenizerSettings
    vocab_size: int
    documents: int
    text_bytes: int
    tokens: int
    remade: bool
    """Whether this call made the files; False when they were there."""


def prepare_corpus(
    corpus: Corpus,
    *,
    tokenizer: TokenizerSettings,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    workers: int = 1,
    force: bool = False,
    console: Console | None = None,
    downloads: DownloadSettings | None = None,
    on_error: OnError = "fail",
) -> PreparedCorpus:
    """Bring the files of `corpus` into its directory, unless they are there already.

    An HFTokenizer without a vocab_file is trained on the corpus, with at most `vocab_size` entries. force: make everything anew,
    downloads included; console: where to tell what happens, None for nowhere; downloads: how files are fetched;
    on_error: what a bad document in a file does, "skip" or "fail". An encoding of files that was cut off is continued. Raises DataError when
    the corpus or the tokenizer cannot be read, or the directory holds another corpus.
    """
    console = console or Console(quiet=True)
    preparation = _Preparation(corpus, tokenizer, vocab_size, workers, console, on_error)
    note = None if force else read_note(corpus.directory)
    if note is not None and note.request.get("source", corpus.source) != corpus.source:
        raise DataError(
            f"{corpus.directory} holds another corpus ({note.request['source']}, not {corpus.source}): give this one a name of its own "
            "with --name, or replace the other with --force."
        )
    known = corpus.known_fingerprint() if note is not None else None
    if note is not None and known is not None and note.request == preparation.request(known):
        return preparation.describe(note, remade=False)
    corpus.prepare(replace(downloads or DownloadSettings(console=console), force=force))
    request = preparation.request(corpus.fingerprint())
    if note is not None and note.request == request:
        return preparation.describe(note, remade=False)
    corpus.verify()
    corpus.directory.mkdir(parents=True, exist_ok=True)
    remove_note(corpus.directory)
    note = preparation.make(request)
    write_note(corpus.directory, note)
    return preparation.describe(note, remade=True)


class _Preparation:
    """One request to prepare a corpus, with the paths it leads to."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: TokenizerSettings,
        vocab_size: int,
        workers: int,
        console: Console,
        on_error: OnError,
    ) -> None:
        self.corpus = corpus
        self.trained_here = tokenizer.tokenizer_type == HFTokenizer.name and tokenizer.vocab_file is None
        self.tokenizer_file = corpus.directory / "tokenizer.json"
        self.tokenizer = replace(tokenizer, vocab_file=str(self.tokenizer_file)) if self.trained_here else tokenizer
        self.vocab_size = vocab_size
        self.workers = workers
        self.console = console
        self.on_error: OnError = on_error
        self.prefix = corpus.directory / f"{corpus.name}_{corpus.key}_document"

    def request(self, fingerprint: str) -> dict[str, Any]:
        """Everything the files depend on, as JSON values; `fingerprint` is the corpus's. Reads the tokenizer, if one is given: DataError when it cannot."""
        if self.trained_here:
            how: dict[str, Any] = {
                "vocab_size": self.vocab_size,
                "pieces": PIECES,
                "special_tokens": list(SPECIAL_TOKENS),
                "longest_token": LONGEST_TOKEN,
                "characters": TRAINING_CHARACTERS,
            }
            if self.tokenizer.eod_token is not None:
                how["eod_token"] = self.tokenizer.eod_token
        else:
            built = build_tokenizer(self.tokenizer)
            how = {"type": built.name, "fingerprint": built.fingerprint(), "eod": built.eod}
        return {
            "format": FORMAT,
            "source": self.corpus.source,
            "corpus": fingerprint,
            "tokenizer": how,
        }

    def make(self, request: dict[str, Any]) -> Note:
        """Train the tokenizer, if that is asked for, and encode the documents."""
        texts = list(self.corpus.documents()) if self.corpus.fits_memory else None
        files = [bin_path(self.prefix), idx_path(self.prefix)]
        if self.trained_here:
            train_on(self.corpus, texts, vocab_size=self.vocab_size, console=self.console).save(self.tokenizer_file)
            files.append(self.tokenizer_file)
        dataset, text_bytes = encode_corpus(
            self.corpus, texts, self.tokenizer, workers=self.workers, console=self.console, on_error=self.on_error
        )
        return Note(
            request=request,
            sizes=sizes_of(files),
            vocab_size=build_tokenizer(self.tokenizer).vocab_size,
            documents=dataset.documents,
            text_bytes=text_bytes,
            tokens=dataset.tokens,
        )

    def describe(self, note: Note, *, remade: bool) -> PreparedCorpus:
        """What the caller gets."""
        return PreparedCorpus(
            name=self.corpus.name,
            prefix=self.prefix,
            tokenizer=self.tokenizer,
            vocab_size=note.vocab_size,
            documents=note.documents,
            text_bytes=note.text_bytes,
            tokens=note.tokens,
            remade=remade,
        )
