"""Put several datasets of one tokenizer together into one; takes the options of GPT-NeoX's script of this name.

    python tools/datasets/merge_datasets.py --input data/part0_text_document data/part1_text_document --output-prefix data/all_text_document
    python tools/datasets/merge_datasets.py --input data/parts/ --output-prefix data/all_text_document

The order is that of the command line; of a directory all datasets are taken, in the order of their names, but for labels and rewards that lie
beside texts (`..._label_document`, `..._reward_document`): with --with-companions these are merged alike, into `data/all_text_label_document`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command, say
from megatron.data.encoding.command import output_prefix


def main() -> None:
    args = parse_arguments()
    from megatron.data.merge import find_datasets, merge_datasets

    found = find_datasets(args.input)
    if found.companions and not args.with_companions:
        names = ", ".join(path.name for path in found.companions)
        print(f"left out, as they belong to texts (--with-companions merges them, too): {names}", file=sys.stderr)
    for merged in merge_datasets(found.prefixes, args.output_prefix, with_companions=args.with_companions):
        say(f"{merged.prefix}.bin, .idx: {merged.documents:,} documents, {merged.tokens:,} tokens")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Put datasets together, in the order given.")
    parser.add_argument("--input", required=True, nargs="+", metavar="PREFIX",
                        help="prefixes of datasets, or directories of them")  # fmt: skip
    parser.add_argument("--with-companions", action="store_true", help="merge their labels and rewards alike")
    parser.add_argument("--output-prefix", required=True, type=output_prefix,
                        help="path the names of the files begin with")  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
