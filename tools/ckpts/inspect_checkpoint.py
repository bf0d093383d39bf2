"""Show what is in a checkpoint: parameters with shapes and norms, optimizer state, and where it is from; compare two, verify, export weights.

    python tools/ckpts/inspect_checkpoint.py runs/local/checkpoints
    python tools/ckpts/inspect_checkpoint.py runs/local/checkpoints/global_step600 --tensor '2.attention.*'
    python tools/ckpts/inspect_checkpoint.py --compare runs/a/checkpoints runs/b/checkpoints --tolerance 1e-5
    python tools/ckpts/inspect_checkpoint.py runs/local/checkpoints --consolidate weights.safetensors --dtype bf16

Reads checkpoints of any layout in one process, without DeepSpeed, one tensor at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.checkpointing.inspecting.parser import parse_arguments
from megatron.command import run_command


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate.
    from megatron.checkpointing.inspecting.command import run
    from megatron.cli.styled import show_lines

    status = run(args, show_lines)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    run_command(main)
