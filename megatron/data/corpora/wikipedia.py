"""English Wikipedia of November 2023 as plain text without tables and references, prepared by Wikimedia; in the order of its pages."""

from __future__ import annotations

from megatron.data.corpora.base import About
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.remote import RemoteKind

PLACE = "https://huggingface.co/datasets/wikimedia/wikipedia/resolve/main/20231101.en"
FILES = 41

WIKIPEDIA = RemoteKind(
    "wikipedia",
    About(
        "6.4 M English articles of 2023-11-01; 41 files (other languages: hf:wikimedia/wikipedia:20231101.de)",
        "12 GB",
        "CC BY-SA 3.0, GFDL",
    ),
    tuple(
        RemoteFile(name, (f"{PLACE}/{name}",)) for name in (f"train-{i:05}-of-{FILES:05}.parquet" for i in range(FILES))
    ),
)
