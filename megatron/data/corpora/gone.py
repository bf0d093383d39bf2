"""Corpora that GPT-NeoX's script knows and that cannot be had any more, or never could be by that name: each with the reason and what to use instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.data.corpora.base import About, Corpus
from megatron.errors import DataError

TAKEN_DOWN = "taken down with the Pile's server in 2023"
NO_ADDRESS = "a working set of EleutherAI's mathematics project, known to GPT-NeoX by name only and never published"


@dataclass(frozen=True)
class Gone:
    """A name that is kept so that it can say why there is nothing behind it."""

    name: str
    reason: str
    instead: str

    @property
    def about(self) -> About:
        """The reason, where others tell what they hold."""
        return About(f"not to be had: {self.reason}; {self.instead}", "nothing", "")

    def __call__(self, directory: Path, *, first_files: int | None = None) -> Corpus:
        """Raises DataError, always."""
        raise DataError(
            f'the corpus "{self.name}" cannot be had: {self.reason}; {self.instead}. Files you have are given as file:PATH.'
        )


BOOKS1 = Gone("books1", f"BookCorpus, books of living authors, {TAKEN_DOWN}", "use gutenberg")
BOOKS3 = Gone("books3", f"books under copyright, {TAKEN_DOWN} after complaints of their authors", "use gutenberg")
OPENWEBTEXT2 = Gone("openwebtext2", TAKEN_DOWN, "use openwebtext")
YOUTUBE_SUBTITLES = Gone("youtube_subtitles", f"under copyright, {TAKEN_DOWN}", "there is no equal")
PROOF_PILE = Gone("proof-pile", NO_ADDRESS, "use hf:EleutherAI/proof-pile-2")
PROOF_PILE_V1 = Gone("proof-pile-v1", NO_ADDRESS, "use hf:hoskinson-center/proof-pile")
ARXIV_PILEV2 = Gone("arxiv-pilev2", NO_ADDRESS, "use arxiv")
ARXIV_RP = Gone("arxiv-rp", NO_ADDRESS, "use arxiv")
OPEN_WEB_MATH = Gone("open-web-math", NO_ADDRESS, "use hf:open-web-math/open-web-math")
OPEN_WEB_MATH_HQ = Gone("open-web-math-hq", NO_ADDRESS, "use hf:open-web-math/open-web-math")
PILE_SAMPLE = Gone("pile-sample", NO_ADDRESS, "use pile with --files N")
PILE_SAMPLE_1 = Gone("pile-sample-1", NO_ADDRESS, "use pile with --files N")
PILE_SAMPLE_2 = Gone("pile-sample-2", NO_ADDRESS, "use pile with --files N")
CODE_NO_MATLAB = Gone("code-no-matlab", NO_ADDRESS, "use github")
