"""Write a model of Hugging Face transformers as a checkpoint, with a configuration for it, and prove that both compute the same.

    python tools/ckpts/convert_hf_to_neox.py models/pythia-160m --output_dir converted/pythia-160m
    python tools/ckpts/convert_hf_to_neox.py hf:EleutherAI/pythia-160m@step3000
    python tools/ckpts/convert_hf_to_neox.py models/pythia-160m --config-only

Checkpoints of GPT-NeoX and Llama as Meta publishes it are read as well. A run needs none of this to begin from such a model: `load: hf:DIR` reads
it in any layout. Tensors are streamed; for the proof transformers has the whole model in memory (4 bytes a parameter).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from megatron.command import run_command
from megatron.conversion.converting.to_checkpoint_parser import parse_arguments


def main() -> None:
    args = parse_arguments()
    # Imported late, so that --help is immediate.
    from megatron.cli.styled import show_lines
    from megatron.conversion.converting.to_checkpoint_command import run

    status = run(args, show_lines)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    run_command(main)
