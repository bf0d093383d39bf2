"""The files of the tokenizer are given and there, before processes start that need them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

FILES: dict[str, dict[str, str]] = {
    "GPT2BPETokenizer": {"vocab_file": "a vocab.json", "merge_file": "its merges.txt"},
    "HFTokenizer": {"vocab_file": "a tokenizer.json, or a directory that holds one"},
    "SPMTokenizer": {"vocab_file": "a SentencePiece model, such as tokenizer.model"},
    "TiktokenTokenizer": {"vocab_file": "an encoding's name, such as cl100k_base, or a .tiktoken file"},
}
"""What each type of tokenizer needs, by key; the others need no file."""

SLASHES_OF_A_NAME = {"HFGPT2Tokenizer": 1, "TiktokenTokenizer": 0}
"""Types whose vocab_file may be the name of something elsewhere, and the slashes such a name may have."""

SUFFIXES = (".json", ".txt", ".tiktoken", ".model", ".bpe")


def check_tokenizer_files(args: Draft) -> None:
    """What the tokenizer reads is given and exists (checked when a script is run)."""
    if not args.user_script:
        return
    needed = FILES.get(args.tokenizer_type, {})
    missing = [key for key in needed if not getattr(args, key)]
    if missing:
        contents = " and ".join(needed[key] for key in missing)
        raise Conflict(
            ("tokenizer_type", *missing),
            f"this tokenizer reads {contents}; give {' and '.join(missing)}, or choose another tokenizer_type",
        )
    keys = ("vocab_file", "merge_file") if args.tokenizer_type == "HFGPT2Tokenizer" else tuple(needed)
    absent = tuple(key for key in keys if not _is_there(args, key))
    if absent:
        what = "this file does not exist" if len(absent) == 1 else "these files do not exist"
        raise Conflict(absent, f"{what}; correct the path")


def check_end_of_document(args: Draft) -> None:
    """A token is named only where there are several to choose from."""
    if args.eod_token is not None and args.tokenizer_type == "CharLevelTokenizer":
        raise Conflict(("eod_token", "tokenizer_type"), "this tokenizer ends documents with id 0; remove eod_token")


def _is_there(args: Draft, key: str) -> bool:
    value: str | None = getattr(args, key)
    if value is None or Path(value).exists():
        return True
    if key != "vocab_file" or value.startswith((".", "/", "~")) or value.endswith(SUFFIXES):
        return False
    return value.count("/") <= SLASHES_OF_A_NAME.get(args.tokenizer_type, -1)
