"""C4: Common Crawl of April 2019, cleaned by Google's rules (Raffel et al. 2020), in the version of AllenAI.

Sizes and licence: https://huggingface.co/datasets/allenai/c4; tokens of `en`: Dodge et al. 2021, "Documenting Large Webtext Corpora".
"""

from __future__ import annotations

from megatron.data.corpora.base import About
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.remote import RemoteKind

PLACE = "https://huggingface.co/datasets/allenai/c4/resolve/main"
LICENCE = "ODC-BY; Common Crawl's terms of use"


def variant(folder: str, files: int) -> tuple[RemoteFile, ...]:
    """The training files of a variant."""
    names = [f"c4-train.{i:05}-of-{files:05}.json.gz" for i in range(files)]
    return tuple(RemoteFile(name, (f"{PLACE}/{folder}/{name}",)) for name in names)


C4 = RemoteKind(
    "c4", About("English web pages, cleaned (en); 1,024 files", "305 GB", LICENCE, "156 B"), variant("en", 1024)
)
C4_OPENWEBTEXT = RemoteKind(
    "c4_openwebtext",
    About("C4's pages of news sites (realnewslike; the name is GPT-NeoX's); 512 files", "15 GB", LICENCE),
    variant("realnewslike", 512),
)
