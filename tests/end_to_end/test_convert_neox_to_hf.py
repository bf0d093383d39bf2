"""tools/ckpts/convert_neox_to_hf.py as a user runs it, on a checkpoint that four processes saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.unit.checkpointing.inspecting.saved import save_run
from tests.unit.conversion.in_memory import weights_of
from tests.unit.model.builders import VARIANTS, build_args
from tests.unit.tokenizer.small import gpt2_files

TOOL = REPOSITORY / "tools" / "ckpts" / "convert_neox_to_hf.py"


def test_a_checkpoint_becomes_a_proven_model(tmp_path: Path) -> None:
    files = gpt2_files(tmp_path / "gpt2")
    settings = {
        **VARIANTS["llama"],
        "max_position_embeddings": 64,
        "precision": "bfloat16",
        "tokenizer_type": files.tokenizer_type,
        "vocab_file": files.vocab_file,
        "merge_file": files.merge_file,
    }
    weights = weights_of(settings, rows=401)
    state = {name.replace("/weight", "/exp_avg"): tensor for name, tensor in weights.items()}
    save_run(tmp_path / "checkpoints", {**weights, **state}, args=build_args(**settings))
    words = ["--input_dir", tmp_path / "checkpoints", "--output_dir", tmp_path / "model", "--max-shard-size", "40KB"]
    command = [sys.executable, TOOL, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert last.startswith(
        "both compute the same, in fp32, with weights in bfloat16, to which rounding them changed outputs by 0."
    )
    assert "text 4" in done.stdout
    report = json.loads((tmp_path / "model" / "conversion_report.json").read_text())
    assert report["architecture"] == "LlamaForCausalLM"
    assert report["source"]["iteration"] == 3
    assert report["source"]["parameters"] == sum(tensor.numel() for tensor in weights.values())
