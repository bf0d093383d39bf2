"""What `prepare_data.py --list` prints."""

from __future__ import annotations

from rich.console import Console

from megatron.components import CORPORA
from megatron.data.corpora.base import CorpusKind
from megatron.data.corpora.gone import Gone

OTHERS = (
    ("hf:NAME[:CONFIG]", "a dataset of the Hugging Face hub; its --split, --text-key and --hf-files"),
    ("file:PATH,...", "files, directories and globs of your own"),
    ("https://...,...", "files on a server"),
)


def show_corpora(output: Console) -> None:
    """Print the corpora with size, tokens and licence, then the names with nothing behind them and why."""
    kinds: list[CorpusKind] = [CORPORA.load(name) for name in CORPORA]
    output.print(f"{'name':<20}{'download':<20}{'tokens':<8}licence")
    for kind in kinds:
        if not isinstance(kind, Gone):
            about = kind.about
            output.print(f"{kind.name:<20}{about.size:<20}{about.tokens:<8}{about.licence}\n    {about.description}")
    for name, what in OTHERS:
        output.print(f"{name:<20}{what}")
    output.print("\nknown from GPT-NeoX, and not to be had:")
    for kind in kinds:
        if isinstance(kind, Gone):
            output.print(f"{kind.name:<20}{kind.reason}; {kind.instead}")
