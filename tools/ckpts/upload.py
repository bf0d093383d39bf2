"""Upload an exported model to the Hugging Face Hub, in one commit, after checking that it is complete and proven equal to the original.

    python tools/ckpts/upload.py exported/ organisation/name --dry-run
    python tools/ckpts/upload.py exported/ organisation/name --create --private
    python tools/ckpts/upload.py exported/ organisation/name --branch step3000 --message "after 3000 iterations"

HF_TOKEN gives the account (or `hf auth login`), HF_ENDPOINT another hub.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.conversion.uploading.parser import parse_arguments


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate.
    from megatron.cli.styled import show_lines
    from megatron.conversion.uploading.command import run

    status = run(args, show_lines)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    run_command(main)
