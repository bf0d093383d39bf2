"""Write a checkpoint as a model of Hugging Face transformers, and prove that this library computes the same with it.

    python tools/ckpts/convert_neox_to_hf.py --input_dir runs/local/checkpoints --output_dir exported
    python tools/ckpts/convert_neox_to_hf.py --input_dir runs/local/checkpoints --iteration 600 --output_dir exported --precision bf16
    python tools/ckpts/convert_neox_to_hf.py --input_dir old/global_step143000 --output_dir exported --architecture llama

Reads checkpoints of any layout in one process. Both sides compute the same prompts in fp32, ours layer by layer; transformers has the whole model
in memory (4 bytes a parameter). What differs is not left behind as a model: there is only a report that says where.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.conversion.converting.to_hugging_face_parser import parse_arguments


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate.
    from megatron.cli.styled import show_lines
    from megatron.conversion.converting.to_hugging_face_command import run

    status = run(args, show_lines)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    run_command(main)
