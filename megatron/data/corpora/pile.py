"""The Pile (Gao et al. 2020) and its components, as far as they can still be had.

The original files, at the-eye.eu, were taken down in 2023 after complaints about Books3, and the files of single components, on which
GPT-NeoX's script relied (the-eye.eu and eaidata.bmk.sh), went with them. What exists is monology/pile-uncopyrighted on the Hugging Face
hub: the 30 training files in their order, without Books3, BookCorpus2, OpenSubtitles, YoutubeSubtitles and OpenWebText2
(https://huggingface.co/datasets/monology/pile-uncopyrighted). A component is cut out of these files by the `pile_set_name` of each
document, so all components share one download; in the Pile small components come two or three times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.data.corpora.base import About, take_files
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.reading import lines_of
from megatron.data.corpora.remote import RemoteCorpus, RemoteKind
from megatron.errors import DataError

PLACE = "https://huggingface.co/datasets/monology/pile-uncopyrighted/resolve/main/train"
LICENCE = "mixed; see the paper, section 7"
SIZE = "335 GB"
FILES = tuple(RemoteFile(f"{i:02}.jsonl.zst", (f"{PLACE}/{i:02}.jsonl.zst",)) for i in range(30))


class PileComponent(RemoteCorpus):
    """The documents of one component in files of the Pile; `set_name` is its name there."""

    def __init__(self, directory: Path, *, name: str, set_name: str, remote: Sequence[RemoteFile], raw: Path) -> None:
        super().__init__(directory, name=name, remote=remote, raw=raw)
        self.set_name = self.variant = set_name

    def files(self) -> Sequence[Path] | None:
        """None: the files hold other components, too."""
        return None

    def documents(self) -> Iterator[str]:
        wanted = json.dumps(self.set_name).encode()
        for file in self.remote:
            for number, line in enumerate(lines_of(self.raw / file.name), start=1):
                if wanted in line:  # most lines are of other components and need not be parsed
                    record = _parse(line, where=f"{self.raw / file.name}:{number}")
                    if record["meta"].get("pile_set_name") == self.set_name:
                        yield record["text"]


@dataclass(frozen=True)
class ComponentKind:
    """A row of the table of components: its name here and in the Pile, and the size of its text."""

    name: str
    set_name: str
    text_size: str

    @property
    def about(self) -> About:
        """As a component: what is downloaded is the Pile."""
        return About(f"component {self.set_name} of the Pile: {self.text_size} of text", f"{SIZE}, the Pile", LICENCE)

    def __call__(self, directory: Path, *, first_files: int | None = None) -> PileComponent:
        """The component, or what of it is in the first files of the Pile."""
        return PileComponent(
            directory,
            name=self.name,
            set_name=self.set_name,
            remote=take_files(FILES, first_files),
            raw=directory.parent / PILE.name / "raw",
        )


def _parse(line: bytes, *, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record["text"], str) and isinstance(record["meta"], dict):
            return dict(record)
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f'{where} is not a document of the Pile, an object with "text" and "meta": download the file again.'
    )


PILE = RemoteKind(
    "pile",
    About("17 of the Pile's 22 components, without books, subtitles and OpenWebText2; 30 files", SIZE, LICENCE),
    FILES,
)
PILE_SUBSET = RemoteKind(
    "pile_subset",
    About("the first of the Pile's 30 files", "11 GB", LICENCE),
    FILES[:1],
    raw_of=PILE.name,
)

# Sizes: table 1 of the paper, before components were repeated.
ARXIV = ComponentKind("arxiv", "ArXiv", "56 GiB")
DM_MATHEMATICS = ComponentKind("dm_mathematics", "DM Mathematics", "7.8 GiB")
ENRON = ComponentKind("enron", "Enron Emails", "0.9 GiB")
EUROPARL = ComponentKind("europarl", "EuroParl", "4.6 GiB")
FREELAW = ComponentKind("freelaw", "FreeLaw", "51 GiB")
GITHUB = ComponentKind("github", "Github", "95 GiB")
GUTENBERG = ComponentKind("gutenberg", "Gutenberg (PG-19)", "11 GiB")
HACKERNEWS = ComponentKind("hackernews", "HackerNews", "3.9 GiB")
NIH = ComponentKind("nih", "NIH ExPorter", "1.9 GiB")
PHILPAPERS = ComponentKind("philpapers", "PhilPapers", "2.4 GiB")
PILE_CC = ComponentKind("pile_cc", "Pile-CC", "227 GiB")
PUBMED = ComponentKind("pubmed", "PubMed Central", "90 GiB")
PUBMED_ABSTRACTS = ComponentKind("pubmed_abstracts", "PubMed Abstracts", "19 GiB")
STACKEXCHANGE = ComponentKind("stackexchange", "StackExchange", "32 GiB")
UBUNTU_IRC = ComponentKind("ubuntu_irc", "Ubuntu IRC", "5.5 GiB")
USPTO = ComponentKind("uspto", "USPTO Backgrounds", "23 GiB")
WIKIPEDIA_EN = ComponentKind("pile_wikipedia", "Wikipedia (en)", "6.4 GiB")
