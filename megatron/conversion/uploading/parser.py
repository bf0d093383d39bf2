"""The command line of upload.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

MESSAGE = "Upload a model converted by deepy-neox"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; options that have no effect together are refused."""
    parser = build_parser()
    args = parser.parse_args(words)
    if args.private and not args.create:
        parser.error("--private is about --create; a repository that exists is made private on its page")
    return args


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        description="Upload a directory that convert_neox_to_hf.py has written to the Hugging Face Hub, in one commit.",
        epilog="Weights and tokenizer files that are in the repository and not in DIR are deleted by the same commit. HF_TOKEN gives the "
        "account, HF_ENDPOINT another hub. Exits with 0; with 1 after a mistake.",
    )
    parser.add_argument("directory", metavar="DIR", help="an exported model")
    parser.add_argument("repository", metavar="REPO", help="ORGANISATION/NAME on the Hub")
    parser.add_argument(
        "--branch", "--revision", metavar="NAME", help="the branch to put it on (default: the main branch)"
    )
    parser.add_argument("--create", action="store_true", help="create the repository, or the branch, if there is none")
    parser.add_argument("--private", action="store_true", help="with --create: only its owners see the repository")
    parser.add_argument("--message", metavar="TEXT", default=MESSAGE, help="of the commit (default: %(default)s)")
    parser.add_argument("--unproven", action="store_true", help="even without a report that the model computes the same as the original")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="show what would be uploaded, without the network")
    return parser
