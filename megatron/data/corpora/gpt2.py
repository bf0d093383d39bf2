"""GPT-2's vocabulary, for `-t GPT2BPETokenizer` without a vocab_file, as GPT-NeoX's script fetches it.

Digests: those that tiktoken checks OpenAI's files by; the hub's files are the same under other names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megatron.data.corpora.download.parallel import DownloadSettings, download
from megatron.data.corpora.download.record import RemoteFile
from megatron.tokenizer.base import TokenizerSettings

HUB = "https://huggingface.co/openai-community/gpt2/resolve/main"
OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"
VOCABULARY = RemoteFile(
    "gpt2-vocab.json",
    (f"{HUB}/vocab.json", f"{OPENAI}/encoder.json"),
    sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
)
MERGES = RemoteFile(
    "gpt2-merges.txt",
    (f"{HUB}/merges.txt", f"{OPENAI}/vocab.bpe"),
    sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
)


def with_gpt2_files(
    tokenizer: TokenizerSettings, data_directory: Path, settings: DownloadSettings
) -> TokenizerSettings:
    """`tokenizer` with GPT-2's files in `data_directory` where it is a GPT2BPETokenizer without files, else as it is."""
    if tokenizer.tokenizer_type != "GPT2BPETokenizer" or tokenizer.vocab_file or tokenizer.merge_file:
        return tokenizer
    download([VOCABULARY, MERGES], data_directory, replace(settings, force=False))
    files = (str(data_directory / file.name) for file in (VOCABULARY, MERGES))
    return replace(tokenizer, vocab_file=next(files), merge_file=next(files))
