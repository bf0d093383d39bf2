"""tools/benchmark/tokenize.py runs, compares what the pipelines wrote, and writes a result without names of this machine."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_benchmark_measures_every_pipeline(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [
        sys.executable,
        "tools/benchmark/tokenize.py",
        "--megabytes",
        "0.4",
        "--rounds",
        "1",
        "--vocab-size",
        "600",
    ]
    done = subprocess.run([*command, "--output", str(output)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the bytes written are identical" in " ".join(done.stdout.split())
    result = json.loads(output.read_text())
    assert set(result["families"]["gpt2"]) == {
        "pool + tokenizers",
        "pipeline + tokenizers",
        "pipeline + gigatoken",
        "pipeline + tiktoken",
        "ceiling: reading and JSON",
        "ceiling: gigatoken alone",
        "ceiling: tiktoken alone",
    }
    assert all(row["MB/s"] > 0 for row in result["families"]["gpt2"].values())
    assert all(row["times the pool by processor time"] > 0 for row in result["families"]["gpt2"].values())
    assert platform.node() not in output.read_text()
    assert str(tmp_path) not in output.read_text()
