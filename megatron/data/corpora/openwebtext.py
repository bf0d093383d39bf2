"""OpenWebText (Gokaslan and Cohen 2019): pages that posts on Reddit with 3 votes or more lead to, as in GPT-2's WebText."""

from __future__ import annotations

from megatron.data.corpora.base import About
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.remote import RemoteKind

PLACE = "https://huggingface.co/datasets/Skylion007/openwebtext/resolve/main/plain_text"
FILES = 80

OPENWEBTEXT = RemoteKind(
    "openwebtext",
    About(
        "8.0 M web pages linked from Reddit; 80 files",
        "24 GB",
        "CC0 for the collection; the texts are their authors'",
        "9 B",
    ),
    tuple(
        RemoteFile(name, (f"{PLACE}/{name}",)) for name in (f"train-{i:05}-of-{FILES:05}.parquet" for i in range(FILES))
    ),
)
